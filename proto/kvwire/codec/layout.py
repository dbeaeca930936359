"""Tensors as little-endian bytes, and the checks that every codec shares."""

import math
import sys
from collections.abc import Sequence
from typing import Final

import torch

from kvwire.errors import BadPayload
from kvwire.segment import SegmentSpec

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def to_bytes(tensor: torch.Tensor) -> bytes:
    """Elements in row-major order, each little-endian."""
    if tensor.numel() == 0:
        return b""
    buffer = bytearray(tensor.numel() * tensor.dtype.itemsize)
    _little_endian(torch.frombuffer(buffer, dtype=tensor.dtype).copy_(tensor.detach().reshape(-1)))
    return bytes(buffer)


def from_bytes(
    payload: bytes | memoryview, dtype: torch.dtype, shape: Sequence[int], device: torch.device | str = "cpu"
) -> torch.Tensor:
    """The inverse of `to_bytes`, in memory of its own.

    Raises:
        BadPayload: not exactly the bytes that shape and dtype need.
    """
    expected = math.prod(shape) * dtype.itemsize
    if len(payload) != expected:
        raise BadPayload(f"{len(payload)} bytes where {expected} were due")
    if expected == 0:
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    flat = torch.frombuffer(bytearray(payload), dtype=dtype)
    _little_endian(flat)
    return flat.reshape(tuple(shape)).to(device)


def _little_endian(flat: torch.Tensor) -> None:
    """Swap the bytes of every element in place, where the machine is big-endian; its own inverse."""
    if sys.byteorder == "big" and flat.dtype.itemsize > 1:
        elements = flat.view(torch.uint8).view(-1, flat.dtype.itemsize)
        elements.copy_(elements.flip(-1))


def narrowed(numbers: torch.Tensor, spec: SegmentSpec) -> torch.Tensor:
    """float32 or float64 numbers, rounded once to the spec's dtype; what is beyond its range is at its end."""
    dtype = DTYPES[spec.dtype]
    largest = torch.finfo(dtype).max
    return numbers.clamp(-largest, largest).to(dtype)


def check_tensor(tensor: torch.Tensor, spec: SegmentSpec) -> None:
    """Before encoding.

    Raises:
        ValueError: shape or dtype is not the spec's.
        BadPayload: it holds NaN or infinity.
    """
    if tuple(tensor.shape) != spec.shape or tensor.dtype is not DTYPES[spec.dtype]:
        raise ValueError(f"{tuple(tensor.shape)} {tensor.dtype} where the spec has {spec.shape} {spec.dtype}")
    check_finite(tensor)


def check_finite(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself.

    Raises:
        BadPayload: it holds NaN or infinity.
    """
    if not bool(torch.isfinite(tensor).all()):
        raise BadPayload("NaN or infinity in a segment")
    return tensor
