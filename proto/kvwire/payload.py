"""What a plan makes of a codec: payloads of one size where it asks for them, and the most bytes they come to."""

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from kvwire.errors import BadPayload, TooLarge
from kvwire.plan import Plan
from kvwire.segment import SegmentSpec

if TYPE_CHECKING:
    import torch

    from kvwire.codec.base import Codec

_LENGTH: Final = struct.Struct("<I")


class Padded:
    """A codec whose payloads all have the size of its largest, so that the size tells nothing of the numbers.

    A payload is the length of the inner one (u32, little-endian), the inner one, and zeros up to 4 + `max_bytes`. Name
    and parameters are the inner codec's: that a slice is padded is the plan's to say.
    """

    def __init__(self, codec: "Codec") -> None:
        self._codec = codec
        self.name = codec.name
        self.parameters_hash = codec.parameters_hash

    def max_bytes(self, spec: SegmentSpec) -> int:
        return _LENGTH.size + self._codec.max_bytes(spec)

    def encode(self, tensor: "torch.Tensor", spec: SegmentSpec) -> bytes:
        inner = self._codec.encode(tensor, spec)
        return (_LENGTH.pack(len(inner)) + inner).ljust(self.max_bytes(spec), b"\0")

    def decode(
        self, payload: bytes, spec: SegmentSpec, device: "torch.device | str" = "cpu"
    ) -> "torch.Tensor":
        if len(payload) != self.max_bytes(spec):
            raise BadPayload(f"{len(payload)} bytes where {self.max_bytes(spec)} were due")
        (length,) = _LENGTH.unpack_from(payload)
        end = _LENGTH.size + length
        if end > len(payload) or payload.count(0, end) != len(payload) - end:
            raise BadPayload("filling that is not zero, or a length past the end")
        return self._codec.decode(payload[_LENGTH.size : end], spec, device)


def payload_codec(plan: Plan, codec: "Codec") -> "Codec":
    """What encodes and decodes the segments of a slice of this plan. `codec`: the one that the plan names."""
    return Padded(codec) if plan.padded else codec


def most_bytes(specs: Iterable[SegmentSpec], codec: "Codec") -> int:
    """Payload bytes that these segments can come to at most. `codec`: as `payload_codec` gives it."""
    return sum(codec.max_bytes(spec) for spec in specs)


def check_bytes(specs: Iterable[SegmentSpec], codec: "Codec", max_bytes: int) -> None:
    """Refuse segments that may come to more than was asked for; 0 is no cap.

    Raises:
        TooLarge: names both sizes.
    """
    most = most_bytes(specs, codec)
    if max_bytes and most > max_bytes:
        raise TooLarge("payload bytes of the plan", most, max_bytes)
