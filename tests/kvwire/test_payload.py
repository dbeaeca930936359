"""What a plan makes of a codec: padded payloads and caps."""

import struct
from dataclasses import replace

import pytest
import torch

from kvwire.codec import Codec
from kvwire.errors import BadPayload, TooLarge, WireError
from kvwire.limits import Limits
from kvwire.plan import Plan
from kvwire.segment import SegmentKind, SegmentSpec
from kvwire.slice_io import Padded, SliceAssembler, SliceWriter, check_bytes, most_bytes, payload_codec
from tests.kvwire.samples import CODECS, excerpt_header, header_of, spec_of, tensor_of

every_codec = pytest.mark.parametrize(
    "codec", [CODECS.get(name) for name in CODECS.names()], ids=CODECS.names()
)


@every_codec
@pytest.mark.parametrize("kind", list(SegmentKind))
@pytest.mark.parametrize("positions", [0, 1, 5])
def test_a_padded_payload_has_one_size_and_decodes_to_the_same_bits(
    codec: Codec, kind: SegmentKind, positions: int
) -> None:
    padded, spec = Padded(codec), spec_of(kind, positions)
    tensors = [tensor_of(spec, 1), tensor_of(spec, 2), torch.zeros(spec.shape)]
    payloads = [padded.encode(tensor, spec) for tensor in tensors]
    assert {len(payload) for payload in payloads} == {4 + codec.max_bytes(spec)} == {padded.max_bytes(spec)}
    for tensor, payload in zip(tensors, payloads, strict=True):
        assert torch.equal(padded.decode(payload, spec), codec.decode(codec.encode(tensor, spec), spec))


@every_codec
def test_a_padded_slice_has_as_many_frames_whatever_it_holds(codec: Codec) -> None:
    limits, padded, counts = Limits(max_frame_bytes=16), Padded(codec), set()
    header = header_of(codec.name)
    for scale in (0.0, 1.0):
        writer = SliceWriter(header, padded, limits)
        assembler = SliceAssembler(header, padded, limits)
        for i, spec in enumerate(header.specs):
            for frame in writer.write(spec, tensor_of(spec, i) * scale):
                assembler.add(frame)
        summary = writer.trailer({})
        assembler.finish(summary)
        counts.add((summary.frames, summary.payload_bytes))
    assert len(counts) == 1


def test_only_a_plan_that_says_so_is_padded() -> None:
    raw = CODECS.get("raw")
    assert payload_codec(Plan(codec="raw"), raw) is raw
    padded = payload_codec(Plan(codec="raw", padded=True), raw)
    assert (padded.name, padded.parameters_hash) == (raw.name, raw.parameters_hash)
    assert padded.max_bytes(spec_of()) == raw.max_bytes(spec_of()) + 4


SPEC = spec_of(SegmentKind.CODE, 2)
HONEST = Padded(CODECS.get("lossless")).encode(torch.zeros(SPEC.shape), SPEC)
(LENGTH,) = struct.unpack_from("<I", HONEST)


@pytest.mark.parametrize(
    "payload",
    [
        HONEST[:-1] + b"\1",
        HONEST[: 4 + LENGTH] + b"\1" + HONEST[5 + LENGTH :],
        HONEST + b"\0",
        HONEST[:-1],
        b"",
        struct.pack("<I", 2**32 - 1) + HONEST[4:],
        struct.pack("<I", len(HONEST) - 3) + HONEST[4:],
        struct.pack("<I", LENGTH - 1) + HONEST[4:],
        struct.pack("<I", LENGTH + 1) + HONEST[4:],
        struct.pack("<I", 0) + HONEST[4:],
        b"the secret is 42".ljust(len(HONEST), b"\0"),
    ],
    ids=["last", "first", "long", "short", "empty", "huge", "past", "less", "more", "none", "text"],
)
def test_filling_that_is_not_zero_and_lengths_that_do_not_fit_are_refused(payload: bytes) -> None:
    assert len(HONEST) > LENGTH + 4
    with pytest.raises(WireError):
        Padded(CODECS.get("lossless")).decode(payload, SPEC)


def test_a_padded_slice_cannot_be_read_as_one_that_is_not() -> None:
    raw = CODECS.get("raw")
    with pytest.raises(BadPayload):
        raw.decode(Padded(raw).encode(tensor_of(SPEC), SPEC), SPEC)
    with pytest.raises(BadPayload):
        Padded(raw).decode(raw.encode(tensor_of(SPEC), SPEC), SPEC)


def test_what_may_come_to_more_than_asked_for_is_refused_on_both_sides() -> None:
    header, raw = header_of(), CODECS.get("raw")
    most = most_bytes(header.specs, raw)
    assert most == header.raw_bytes == 4 * 96
    for cap in (0, most, most + 1):
        SliceWriter(header, raw, Limits(), cap)
        SliceAssembler(header, raw, Limits(), max_bytes=cap)
    for refused in (SliceWriter, SliceAssembler):
        with pytest.raises(TooLarge, match=f"{most} is over the limit of {most - 1}"):
            refused(header, raw, Limits(), max_bytes=most - 1)
    with pytest.raises(TooLarge):
        check_bytes(header.specs, Padded(raw), most)


def test_a_codec_that_gives_more_than_it_said_is_stopped_in_the_cloud() -> None:
    class Liar(Padded):
        def max_bytes(self, spec: SegmentSpec) -> int:
            return 4

        def encode(self, tensor: torch.Tensor, spec: SegmentSpec) -> bytes:
            return bytes(5)

    header = replace(excerpt_header(), specs=(SPEC,))
    with pytest.raises(ValueError, match="more than it said"):
        SliceWriter(header, Liar(CODECS.get("raw")), Limits(), 4).write(SPEC, tensor_of(SPEC))
