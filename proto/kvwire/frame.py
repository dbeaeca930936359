"""Payloads cut into frames, each with a checksum that binds it to its place, and put together again."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import xxhash

from kvwire.errors import BadChecksum, BadPayload, TooLarge, WireError
from kvwire.limits import MIB, Limits
from kvwire.payload import check_bytes
from kvwire.segment import Segment, SegmentSpec, SliceHeader, SliceSummary

if TYPE_CHECKING:
    import torch

    from kvwire.codec.base import Codec

_PLACE: Final = struct.Struct("<IIQQ")


@dataclass(frozen=True, slots=True)
class Frame:
    """A run of bytes of one segment's payload.

    Attributes:
        sequence: 0, 1, 2, ... over the whole slice.
        offset: payload bytes of this segment before this frame.
        total: payload bytes of this segment.
        checksum: xxh3-64 over request digest, sequence, segment id, offset, total and data.
    """

    sequence: int
    segment_id: int
    offset: int
    total: int
    data: bytes
    checksum: int

    def place(self) -> bytes:
        """Sequence, segment id, offset and total, little-endian."""
        return _PLACE.pack(self.sequence, self.segment_id, self.offset, self.total)

    def computed_checksum(self, request_digest: bytes) -> int:
        """What `checksum` must be in the slice that answers this request."""
        state = xxhash.xxh3_64(request_digest)
        state.update(self.place())
        state.update(self.data)
        return int(state.intdigest())


def frames_of(
    request_digest: bytes, spec: SegmentSpec, payload: bytes, sequence: int, max_frame_bytes: int = MIB
) -> Iterator[Frame]:
    """The frames of one segment, at least one: an empty payload is one empty frame.

    Args:
        request_digest: 16 bytes, as in the header.
        sequence: number of the first frame.
    """
    for i, offset in enumerate(range(0, len(payload) or 1, max_frame_bytes)):
        data = payload[offset : offset + max_frame_bytes]
        bare = Frame(sequence + i, spec.segment_id, offset, len(payload), data, 0)
        yield Frame(
            bare.sequence, bare.segment_id, offset, bare.total, data, bare.computed_checksum(request_digest)
        )


class SliceDigest:
    """xxh3-128 over the header's fingerprint and every frame's place and data, in order.

    It guards against faults of software; against people there is TLS.
    """

    def __init__(self, header: SliceHeader) -> None:
        self._state = xxhash.xxh3_128(header.fingerprint())

    def add(self, frame: Frame) -> None:
        """Take in the next frame."""
        self._state.update(frame.place())
        self._state.update(frame.data)

    def value(self) -> bytes:
        """16 bytes."""
        return bytes(self._state.digest())


class SliceAssembler:
    """Checks and decodes the frames of one slice, strictly in order. After one error nothing more is taken.

    Args:
        header: checked already, by `kvwire.description.check_header`.
        codec: the one that was asked for, padded if that was.
        device: where decoded segments are put.
        max_bytes: the most payload bytes the slice may come to; 0 is no cap.

    Raises:
        TooLarge: the slice is over the limits, or may come to more bytes than that.
    """

    def __init__(
        self,
        header: SliceHeader,
        codec: "Codec",
        limits: Limits,
        device: "torch.device | str" = "cpu",
        max_bytes: int = 0,
    ) -> None:
        limits.check_slice(header)
        check_bytes(header.specs, codec, max_bytes)
        self._header, self._codec, self._limits, self._device = header, codec, limits, device
        self._digest = SliceDigest(header)
        self._segments = self._frames = self._payload_bytes = self._decoded_bytes = 0
        self._buffer = bytearray()
        self._filled = 0
        self._failed = False

    def add(self, frame: Frame) -> Segment | None:
        """Take the next frame; the segment, if this frame completes one.

        Raises:
            BadChecksum: a bit of the frame changed, or it belongs to another request.
            TooLarge: it announces or holds more than the codec or the limits allow.
            BadPayload: it is not the frame that is due, or the segment does not decode.
        """
        if self._failed:
            raise BadPayload("the slice failed before")
        try:
            return self._add(frame)
        except WireError:
            self._failed = True
            self._buffer = bytearray()
            raise

    def finish(self, summary: SliceSummary) -> None:
        """Compare what arrived with what was sent.

        Raises:
            BadChecksum: the digests differ.
            BadPayload: something is missing, or the slice failed before.
        """
        if self._failed or self._segments != len(self._header.specs):
            raise BadPayload(f"{self._segments} of {len(self._header.specs)} segments arrived")
        arrived = (self._frames, self._payload_bytes, self._header.positions)
        if arrived != (summary.frames, summary.payload_bytes, summary.positions):
            raise BadPayload("the summary counts other frames, bytes or positions")
        if summary.digest != self._digest.value():
            raise BadChecksum("the digest of the slice")

    def partial(self) -> float:
        """Share of the slice that arrived and decoded, 0 to 1, by decoded bytes."""
        whole = self._header.raw_bytes
        if whole == 0:
            return 1.0 if self._segments == len(self._header.specs) else 0.0
        return self._decoded_bytes / whole

    @property
    def payload_bytes(self) -> int:
        """Bytes of data in the frames taken."""
        return self._payload_bytes

    def _add(self, frame: Frame) -> Segment | None:
        if frame.checksum != frame.computed_checksum(self._header.request_digest):
            raise BadChecksum(f"frame {frame.sequence}")
        if self._segments == len(self._header.specs):
            raise BadPayload("a frame after the last segment")
        spec = self._header.specs[self._segments]
        self._check_place(frame, spec)
        end = frame.offset + len(frame.data)
        if end == frame.total and frame.offset == 0:
            payload = frame.data
        else:
            if frame.offset == 0:
                self._buffer = bytearray(frame.total)
            self._buffer[frame.offset : end] = frame.data
            payload = bytes(self._buffer) if end == frame.total else b""
        self._digest.add(frame)
        self._frames += 1
        self._payload_bytes += len(frame.data)
        self._filled = end
        if end < frame.total:
            return None
        tensor = self._codec.decode(payload, spec, self._device)
        if tuple(tensor.shape) != spec.shape or str(tensor.dtype) != f"torch.{spec.dtype}":
            raise BadPayload(f"codec {self._codec.name} gave {tuple(tensor.shape)} {tensor.dtype}")
        self._segments += 1
        self._decoded_bytes += spec.raw_bytes
        self._buffer, self._filled = bytearray(), 0
        return Segment(spec, tensor)

    def _check_place(self, frame: Frame, spec: SegmentSpec) -> None:
        if len(frame.data) > self._limits.max_frame_bytes:
            raise TooLarge("frame bytes", len(frame.data), self._limits.max_frame_bytes)
        if frame.total > self._codec.max_bytes(spec):
            raise TooLarge("segment bytes", frame.total, self._codec.max_bytes(spec))
        due = (self._frames, spec.segment_id, self._filled)
        if (frame.sequence, frame.segment_id, frame.offset) != due:
            raise BadPayload(f"frame {frame.sequence} of segment {frame.segment_id} is not due")
        if frame.offset and frame.total != len(self._buffer):
            raise BadPayload("a segment that changes its size")
        end = frame.offset + len(frame.data)
        if end > frame.total or (not frame.data and frame.total):
            raise BadPayload("a frame that is empty or goes past the end of its segment")
