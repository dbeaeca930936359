"""Write a safetensors file one tensor at a time: converting a model never holds all of it in memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path

import torch
from torch import Tensor

_DTYPES = {"float32": (torch.float32, "F32", 4), "bfloat16": (torch.bfloat16, "BF16", 2)}


def write_safetensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    weights: Iterable[tuple[str, Tensor]],
    dtype: str,
    advance: Callable[[int], None] = lambda numbers: None,
) -> None:
    """Write `weights` as `dtype` ("float32" or "bfloat16"); they come in the order and shapes of `shapes`.

    `advance` is called with the count of numbers after each tensor. Format: 8 bytes little-endian header
    length, JSON header padded with spaces to 8 bytes, then the data.
    """
    torch_dtype, code, size = _DTYPES[dtype]
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + prod(shape) * size
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    expected = iter(shapes.items())
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name, tensor in weights:
            if next(expected, None) != (name, tuple(tensor.shape)):
                raise ValueError(f"tensor {name!r} is out of order or of another shape than announced")
            file.write(tensor.to(torch_dtype).reshape(-1).view(torch.uint8).numpy().data)
            advance(tensor.numel())
    if next(expected, None) is not None:
        raise ValueError("fewer tensors than announced")
