"""The two exact codecs: every bit of the segment, as it is or in a zstd frame."""

from typing import Final

import torch
import zstandard

from kvwire.codec.base import DTYPES, check_finite, check_tensor, from_bytes, hash_parameters, to_bytes
from kvwire.errors import BadPayload
from kvwire.segment import ITEM_BYTES, SegmentSpec


class Raw:
    """Every bit, as it is: elements in row-major order, little-endian."""

    name: Final = "raw"
    parameters_hash: Final = hash_parameters("raw", {"version": 1})

    def max_bytes(self, spec: SegmentSpec) -> int:
        return spec.raw_bytes

    def encode(self, tensor: torch.Tensor, spec: SegmentSpec) -> bytes:
        check_tensor(tensor, spec)
        return to_bytes(tensor)

    def decode(self, payload: bytes, spec: SegmentSpec, device: torch.device | str = "cpu") -> torch.Tensor:
        return check_finite(from_bytes(payload, DTYPES[spec.dtype], spec.shape, device))


_LEVEL = 1
_MAX_WINDOW_BYTES = 8 << 20


class Lossless:
    """Byte planes, lowest byte of every element first, in one zstd frame. Nothing at all for no elements.

    Exponent bytes are alike and compress; mantissa bytes are noise and pass through.
    """

    name: Final = "lossless"
    parameters_hash: Final = hash_parameters(
        "lossless", {"version": 1, "planes": "little", "entropy": "zstd"}
    )

    def max_bytes(self, spec: SegmentSpec) -> int:
        size = spec.raw_bytes
        # ZSTD_compressBound of zstd.h
        return size + (size >> 8) + (max(0, (128 << 10) - size) >> 11) if size else 0

    def encode(self, tensor: torch.Tensor, spec: SegmentSpec) -> bytes:
        check_tensor(tensor, spec)
        if not spec.elements:
            return b""
        width = ITEM_BYTES[spec.dtype]
        flat = from_bytes(to_bytes(tensor), torch.uint8, (spec.elements, width))
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False, write_content_size=True)
        return bytes(compressor.compress(to_bytes(flat.t())))

    def decode(self, payload: bytes, spec: SegmentSpec, device: torch.device | str = "cpu") -> torch.Tensor:
        planes = _decompress(payload, spec.raw_bytes)
        width = ITEM_BYTES[spec.dtype]
        flat = from_bytes(planes, torch.uint8, (width, spec.elements)).t()
        return check_finite(from_bytes(to_bytes(flat), DTYPES[spec.dtype], spec.shape, device))


def _decompress(payload: bytes, expected: int) -> bytes:
    """Exactly `expected` bytes out of exactly one zstd frame, which declares its content size.

    Sizes are checked before anything is allocated: the library's own `max_output_size` is ignored when a frame
    declares a size.

    Raises:
        BadPayload: the frame is damaged, of another size, wants a big window or dictionary, or a tail.
    """
    if expected == 0:
        if payload:
            raise BadPayload(f"{len(payload)} bytes for an empty segment")
        return b""
    try:
        frame = zstandard.get_frame_parameters(payload)
        if frame.content_size != expected:
            raise BadPayload(f"a zstd frame of {frame.content_size} bytes where {expected} were due")
        if frame.window_size > _MAX_WINDOW_BYTES or frame.dict_id:
            raise BadPayload("a zstd frame that wants too large a window or a dictionary")
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        data = bytes(decompressor.decompress(payload, max_output_size=expected, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise BadPayload(f"zstd: {error}") from None
    if len(data) != expected:
        raise BadPayload(f"zstd gave {len(data)} bytes where {expected} were due")
    return data
