"""A slice as bytes: payloads cut into frames in the cloud, checked and put together again at the edge."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import xxhash

from kvwire.errors import BadChecksum, BadPayload, TooLarge
from kvwire.limits import Limits
from kvwire.plan import Plan
from kvwire.segment import UNTOLD, Certainty, Segment, SegmentSpec, SliceHeader, SliceTrailer

if TYPE_CHECKING:
    import torch

    from kvwire.codec.base import Codec


_LOW_BITS: Final = 0x7F
_MORE: Final = 0x80
_LENGTH_BYTES: Final = 5  # 35 bits: more than any payload may have


def length_bytes(size: int) -> bytes:
    """The prefix of a payload with this many bytes: unsigned LEB128, the varint of protobuf."""
    length = bytearray()
    while size > _LOW_BITS:
        length.append(size & _LOW_BITS | _MORE)
        size >>= 7
    length.append(size)
    return bytes(length)


class PayloadStream:
    """Takes the payloads of a slice out of the data of its frames, which may end anywhere.

    Args:
        most: the most bytes of each payload, in order.
    """

    def __init__(self, most: Sequence[int]) -> None:
        self._most = most
        self._payloads = 0
        self._size: int | None = None  # of the payload that is due; None while its length is read
        self._buffer = bytearray()  # what has come of the length, then of the payload

    def add(self, data: bytes) -> list[bytes]:
        """The payloads that these bytes complete.

        Raises:
            TooLarge: a payload is announced to be larger than it may be; nothing is allocated for it.
            BadPayload: there is something after the last payload, or a length is written in more bytes than it needs.
        """
        complete, at = [], 0
        while at < len(data):
            if self._payloads == len(self._most):
                raise BadPayload("bytes after the last segment")
            if self._size is None:
                self._buffer.append(data[at])
                at += 1
                self._size = self._size_read()
                if self._size is None:
                    continue
                self._buffer.clear()
            taken = data[at : at + self._size - len(self._buffer)]
            self._buffer += taken
            at += len(taken)
            if len(self._buffer) == self._size:
                complete.append(bytes(self._buffer))
                self._payloads += 1
                self._size, self._buffer = None, bytearray()
        return complete

    def _size_read(self) -> int | None:
        """The payload's size, once its whole length is in the buffer."""
        length, last = self._buffer, self._buffer[-1]
        if last & _MORE:
            if len(length) == _LENGTH_BYTES:
                raise BadPayload("a length without end")
            return None
        if last == 0 and len(length) > 1:
            raise BadPayload("a length with bytes to spare")
        size = sum((part & _LOW_BITS) << 7 * i for i, part in enumerate(length))
        if size > self._most[self._payloads]:
            raise TooLarge("segment bytes", size, self._most[self._payloads])
        return size


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


_SEQUENCE: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Frame:
    """A piece of the stream of a slice's payloads (`kvwire.slice_io`); it may hold several of them, or a part of one.

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
        header: checked already, by `kvwire.messages.check_header`.
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

    def trailer(
        self, timings: dict[str, float], certainty: Certainty = UNTOLD, quoted: int = 0, runs: int = 0
    ) -> SliceTrailer:
        """The end of the slice.

        Args:
            timings: seconds, keys "queue", "prefill", "encode". certainty: how sure the Sharer is. quoted, runs: as in
                the trailer.

        Raises:
            ValueError: segments are missing.
        """
        if self._segments != len(self._header.specs):
            raise ValueError(f"{self._segments} of {len(self._header.specs)} segments are written")
        digest, positions = self._digest.value(), self._header.positions
        told = certainty.coarse, quoted, runs
        return SliceTrailer(digest, self._frames, self._payload_bytes, positions, dict(timings), *told)
