"""A slice on its way out: segments encoded and cut into frames, in the cloud."""

from typing import TYPE_CHECKING, Final

from kvwire.frame import Frame, SliceDigest
from kvwire.limits import Limits
from kvwire.payload import check_bytes
from kvwire.segment import SegmentSpec, SliceHeader, SliceTrailer
from kvwire.stream import length_bytes

if TYPE_CHECKING:
    import torch

    from kvwire.codec.base import Codec

_WORTH_SENDING: Final = 4096
"""Bytes that are worth a frame of their own, some 25 bytes of messages, before the slice ends."""


class SliceWriter:
    """Encodes the segments of one slice in the header's order.

    Args:
        codec: the one that was asked for, padded if that was.
        max_bytes: the most payload bytes the slice may come to; 0 is no cap.

    Raises:
        TooLarge: the segments may come to more.
    """

    def __init__(self, header: SliceHeader, codec: "Codec", limits: Limits, max_bytes: int = 0) -> None:
        check_bytes(header.specs, codec, max_bytes)
        self._header, self._codec, self._limits = header, codec, limits
        self._digest = SliceDigest(header)
        self._segments = self._frames = self._payload_bytes = 0
        self._waiting = bytearray()

    def write(self, spec: SegmentSpec, tensor: "torch.Tensor") -> list[Frame]:
        """Encode the next segment. Gives the frames to send now, maybe none; with the last segment all that is left.

        Raises:
            ValueError: it is not this segment's turn, the tensor is not what the spec says, or the codec gave more
                bytes than it says it can.
            BadPayload: the tensor holds NaN or infinity.
        """
        if self._segments >= len(self._header.specs) or self._header.specs[self._segments] != spec:
            raise ValueError(f"segment {spec.segment_id} is not due")
        payload = self._codec.encode(tensor, spec)
        if len(payload) > self._codec.max_bytes(spec):
            raise ValueError(f"codec {self._codec.name} gave {len(payload)} bytes, more than it said")
        self._waiting += length_bytes(len(payload))
        self._waiting += payload
        self._segments += 1
        self._payload_bytes += len(payload)
        return self._frames_of_waiting()

    def _frames_of_waiting(self) -> list[Frame]:
        last = self._segments == len(self._header.specs)
        if len(self._waiting) < _WORTH_SENDING and not last:
            return []
        digest, size = self._header.request_digest, self._limits.max_frame_bytes
        with memoryview(self._waiting) as waiting:
            pieces = [bytes(waiting[start : start + size]) for start in range(0, len(waiting), size)]
        self._waiting = bytearray()
        frames = [Frame.of(digest, self._frames + i, piece) for i, piece in enumerate(pieces)]
        for frame in frames:
            self._digest.add(frame)
        self._frames += len(frames)
        return frames

    def trailer(self, timings: dict[str, float]) -> SliceTrailer:
        """The end of the slice.

        Args:
            timings: seconds, keys "queue", "prefill", "encode".

        Raises:
            ValueError: segments are missing.
        """
        if self._segments != len(self._header.specs):
            raise ValueError(f"{self._segments} of {len(self._header.specs)} segments are written")
        positions = self._header.positions
        return SliceTrailer(self._digest.value(), self._frames, self._payload_bytes, positions, dict(timings))
