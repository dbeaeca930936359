"""What the parts of kvwire load, in a fresh interpreter each."""

from tests.process import modules_after

HEAVY = {"torch", "numpy", "ray", "transformers"}


def test_the_light_modules_and_names_load_neither_torch_nor_grpc() -> None:
    light = ["errors", "identity", "limits", "messages", "plan", "section", "segment"]
    imports = "; ".join(f"import kvwire.{name}" for name in light)
    assert not modules_after(f"{imports}; kvwire.Section, kvwire.Plan") & (
        HEAVY | {"grpc", "google.protobuf"}
    )


def test_what_a_gateway_needs_loads_no_torch() -> None:
    assert not modules_after("import kvwire.slice_io, kvwire.serde, kvwire.status") & HEAVY
