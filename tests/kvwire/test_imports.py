import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "ray", "transformers"}


@pytest.mark.parametrize("module", ["section", "segment", "limits", "errors", "identity", "messages", "plan"])
def test_a_light_module_loads_neither_torch_nor_grpc(module: str) -> None:
    assert not loaded_by(f"kvwire.{module}") & (HEAVY | {"grpc", "google.protobuf"})


@pytest.mark.parametrize("module", ["slice_io", "serde", "status"])
def test_what_a_gateway_needs_loads_no_torch(module: str) -> None:
    assert not loaded_by(f"kvwire.{module}") & HEAVY


def loaded_by(module: str) -> set[str]:
    code = f"import sys; sys.path[:] = {sys.path!r}; import {module}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
