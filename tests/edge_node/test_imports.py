"""`import edge_node` is cheap, and nothing at the edge needs Ray."""

import pytest

from tests.process import modules_after


def test_importing_the_package_loads_neither_torch_nor_grpc() -> None:
    assert not modules_after("import edge_node; edge_node.EdgeConfig; edge_node.Ask('Who?')") & {
        "torch",
        "transformers",
        "grpc",
        "ray",
        "cloud_node",
        "starlette",
    }


def test_the_library_needs_no_extra() -> None:
    library = modules_after("from edge_node import Answer, Assistant, AsyncClient, Client")
    assert not library & {"ray", "cloud_node", "sqlalchemy", "starlette", "uvicorn"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    import edge_node

    with pytest.raises(AttributeError):
        edge_node.Nonsense  # noqa: B018
    assert all(getattr(edge_node, name) for name in edge_node.__all__)
