"""What a codec is, and what all codecs share: tensors as little-endian bytes, checks, the round trip.

A new codec is a class that satisfies `Codec`, and a line in the registry.
"""

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

import torch

from kvwire.errors import BadPayload
from kvwire.segment import SegmentSpec


@runtime_checkable
class Codec(Protocol):
    """Segment <-> bytes. Stateless after construction and safe to call from several threads."""

    @property
    def name(self) -> str:
        """Short name, as requests and plans say it."""

    @property
    def parameters_hash(self) -> str:
        """Equal on both sides exactly if each decodes what the other encodes."""

    def max_bytes(self, spec: SegmentSpec) -> int:
        """The most bytes `encode` can return for this spec."""

    def encode(self, tensor: torch.Tensor, spec: SegmentSpec) -> bytes:
        """Bytes of one segment.

        Args:
            tensor: shape and dtype of `spec`, on any device. Nothing for an empty tensor: `b""`.

        Raises:
            ValueError: the tensor is not what the spec says.
            BadPayload: the tensor holds NaN or infinity.
        """

    def decode(self, payload: bytes, spec: SegmentSpec, device: torch.device | str = "cpu") -> torch.Tensor:
        """The segment of a peer's bytes: the same bits on every device, all finite.

        Raises:
            WireError: the bytes are not exactly one such segment.
        """


def hash_parameters(name: str, parameters: Mapping[str, object]) -> str:
    """SHA-256, in hex, of a codec's name and parameters in canonical JSON."""
    text = json.dumps({"name": name, **parameters}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


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
    # The largest is NaN where any is, and found in a fifth of the time of asking each.
    if tensor.numel() and not math.isfinite(tensor.detach().float().abs().max()):
        raise BadPayload("NaN or infinity in a segment")
    return tensor


def roundtrip(codec: Codec, tensors: torch.Tensor, spec: SegmentSpec) -> tuple[torch.Tensor, list[int]]:
    """Tensors as they arrive by a codec, each encoded for itself, and the payload bytes of each.

    The gradient passes straight through: that of what arrived is that of what left.

    Args:
        tensors: (batch, *spec.shape) in the dtype of `spec`, on any device.

    Raises:
        Unsupported: the codec has no basis for such a segment.
    """
    sent = tensors.detach().contiguous()
    payloads = [codec.encode(tensor, spec) for tensor in sent]
    decoded = [codec.decode(payload, spec, tensors.device) for payload in payloads]
    arrived = torch.stack(decoded) if decoded else sent
    if tensors.requires_grad:
        arrived = arrived + (tensors - sent)
    return arrived, [len(payload) for payload in payloads]
