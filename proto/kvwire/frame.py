"""The payloads of a slice cut into frames, each with a checksum that binds it to its place, and put together again."""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import xxhash

from kvwire.errors import BadChecksum, BadPayload, TooLarge
from kvwire.limits import Limits
from kvwire.payload import check_bytes
from kvwire.segment import Segment, SegmentSpec, SliceHeader, SliceTrailer
from kvwire.stream import PayloadStream

if TYPE_CHECKING:
    import torch

    from kvwire.codec.base import Codec

_SEQUENCE: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Frame:
    """A piece of the stream of a slice's payloads (`kvwire.stream`); it may hold several of them, or a part of one.

    Attributes:
        sequence: 0, 1, 2, ... over the whole slice.
        checksum: xxh3-64 over request digest, sequence and data.
    """

    sequence: int
    data: bytes
    checksum: int

    @classmethod
    def of(cls, request_digest: bytes, sequence: int, data: bytes) -> "Frame":
        """A frame with its checksum. request_digest: 16 bytes, as in the header."""
        return cls(sequence, data, _checksum(request_digest, sequence, data))

    def computed_checksum(self, request_digest: bytes) -> int:
        """What `checksum` must be in the slice that answers this request."""
        return _checksum(request_digest, self.sequence, self.data)


def _checksum(request_digest: bytes, sequence: int, data: bytes) -> int:
    state = xxhash.xxh3_64(request_digest)
    state.update(_SEQUENCE.pack(sequence))
    state.update(data)
    return int(state.intdigest())


class SliceDigest:
    """xxh3-128 over the header's fingerprint and the data of every frame, in order.

    It guards against faults of software; against people there is TLS.
    """

    def __init__(self, header: SliceHeader) -> None:
        self._state = xxhash.xxh3_128(header.fingerprint())

    def add(self, frame: Frame) -> None:
        """Take in the next frame."""
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
        self._stream = PayloadStream([codec.max_bytes(spec) for spec in header.specs])
        self._segments = self._frames = self._payload_bytes = self._decoded_bytes = 0
        self._failed = False

    def add(self, frame: Frame) -> list[Segment]:
        """Take the next frame; the segments that it completes.

        Raises:
            BadChecksum: a bit of the frame changed, or it belongs to another request.
            TooLarge: it announces or holds more than the codec or the limits allow.
            BadPayload: it is not the frame that is due, or a segment does not decode.
        """
        if self._failed:
            raise BadPayload("the slice failed before")
        self._failed = True  # until it is taken: whatever goes wrong, nothing may follow
        if frame.checksum != frame.computed_checksum(self._header.request_digest):
            raise BadChecksum(f"frame {frame.sequence}")
        if len(frame.data) > self._limits.max_frame_bytes:
            raise TooLarge("frame bytes", len(frame.data), self._limits.max_frame_bytes)
        if frame.sequence != self._frames or not frame.data:
            raise BadPayload(f"frame {frame.sequence} is empty or not due")
        payloads = self._stream.add(frame.data)
        specs = self._header.specs[self._segments : self._segments + len(payloads)]
        segments = [self._decoded(payload, spec) for payload, spec in zip(payloads, specs, strict=True)]
        self._digest.add(frame)
        self._frames += 1
        self._segments += len(segments)
        self._payload_bytes += sum(map(len, payloads))
        self._decoded_bytes += sum(spec.raw_bytes for spec in specs)
        self._failed = False
        return segments

    def finish(self, trailer: SliceTrailer) -> None:
        """Compare what arrived with what was sent.

        Raises:
            BadChecksum: the digests differ.
            BadPayload: something is missing, or the slice failed before.
        """
        if self._failed or self._segments != len(self._header.specs):
            raise BadPayload(f"{self._segments} of {len(self._header.specs)} segments arrived")
        arrived = (self._frames, self._payload_bytes, self._header.positions)
        if arrived != (trailer.frames, trailer.payload_bytes, trailer.positions):
            raise BadPayload("the trailer counts other frames, bytes or positions")
        if trailer.digest != self._digest.value():
            raise BadChecksum("the digest of the slice")

    def partial(self) -> float:
        """Share of the slice that arrived and decoded, 0 to 1, by decoded bytes."""
        whole = self._header.raw_bytes
        if whole == 0:
            return 1.0 if self._segments == len(self._header.specs) else 0.0
        return self._decoded_bytes / whole

    @property
    def payload_bytes(self) -> int:
        """Bytes of the payloads that arrived whole and decoded, without the lengths before them."""
        return self._payload_bytes

    def _decoded(self, payload: bytes, spec: SegmentSpec) -> Segment:
        tensor = self._codec.decode(payload, spec, self._device)
        if tuple(tensor.shape) != spec.shape or str(tensor.dtype) != f"torch.{spec.dtype}":
            raise BadPayload(f"codec {self._codec.name} gave {tuple(tensor.shape)} {tensor.dtype}")
        return Segment(spec, tensor)
