"""The streaming writer makes files that the safetensors library reads."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ops.models.store import write_safetensors

WEIGHTS = {
    "b": torch.randn(3, 5),
    "a": torch.arange(7.0),
    "empty": torch.zeros(0, 4),
    "one": torch.tensor(2.5),
}
SHAPES = {name: tuple(weight.shape) for name, weight in WEIGHTS.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_written_is_read_back(dtype: str, tmp_path: Path) -> None:
    seen: list[int] = []
    path = tmp_path / "model.safetensors"
    write_safetensors(path, SHAPES, WEIGHTS.items(), dtype, seen.append)
    read = load_file(path)
    assert read.keys() == WEIGHTS.keys()
    for name, weight in WEIGHTS.items():
        assert torch.equal(read[name], weight.to(getattr(torch, dtype)))
    assert seen == [15, 7, 0, 1]
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_tensor_out_of_order_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="out of order"):
        write_safetensors(tmp_path / "x", SHAPES, reversed(WEIGHTS.items()), "float32")


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another shape"):
        write_safetensors(tmp_path / "x", {"a": (2, 2)}, [("a", torch.zeros(4))], "float32")


def test_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fewer tensors"):
        write_safetensors(tmp_path / "x", {"a": (4,)}, [], "float32")
