import random
from dataclasses import replace

import pytest
import torch

from kvwire.errors import BadPayload, TooLarge
from kvwire.limits import MIB, Limits
from kvwire.segment import Segment, SegmentKind, SliceHeader
from kvwire.slice_io import Padded, PayloadStream, SliceAssembler, SliceWriter
from tests.kvwire.samples import (
    CODECS,
    SMALL_FRAMES,
    excerpt_header,
    header_of,
    spec_of,
    tensor_of,
    with_length,
    written,
)


def assemble(header: SliceHeader, codec: str = "raw") -> list[Segment]:
    frames, summary = written(header, codec)
    assembler = SliceAssembler(header, CODECS.get(codec), SMALL_FRAMES)
    segments = [segment for frame in frames for segment in assembler.add(frame)]
    assembler.finish(summary)
    assert assembler.partial() == 1.0
    assert assembler.payload_bytes == summary.payload_bytes
    return segments


@pytest.mark.parametrize("most", [1, 5, 98])
def test_frames_may_end_anywhere_within_a_length_too(most: int) -> None:
    header = header_of(positions=20)  # lengths of two bytes
    frames, summary = written(header, limits=Limits(max_frame_bytes=most))
    assembler = SliceAssembler(header, CODECS.get("raw"), SMALL_FRAMES if most < 64 else Limits())
    segments = [segment for frame in frames for segment in assembler.add(frame)]
    assembler.finish(summary)
    assert all(torch.equal(got.tensor, tensor_of(got.spec, i)) for i, got in enumerate(segments))


@pytest.mark.parametrize("codec", CODECS.names())
@pytest.mark.parametrize("header", [header_of, excerpt_header], ids=["shared", "excerpt"])
@pytest.mark.parametrize("positions", [0, 1, 3, 40])
def test_a_slice_arrives_as_it_was_sent(codec: str, header: object, positions: int) -> None:
    sent = header(codec, positions)  # type: ignore[operator]
    segments = assemble(sent, codec)
    assert [segment.spec for segment in segments] == list(sent.specs)
    for i, segment in enumerate(segments):
        alone = CODECS.get(codec).encode(tensor_of(segment.spec, i), segment.spec)
        assert torch.equal(segment.tensor, CODECS.get(codec).decode(alone, segment.spec))


def test_a_slice_without_segments_is_complete_at_once() -> None:
    assert assemble(replace(header_of(), specs=())) == []


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 1_000_000])
def test_payloads_come_out_as_they_went_in_however_they_are_cut(size: int) -> None:
    chance = random.Random(size)
    sent = [chance.randbytes(n) for n in (size, 3, 0, size // 3, 0)]
    run = b"".join(map(with_length, sent))
    assert len(run) - sum(map(len, sent)) <= 3 * len(sent)
    for cut in (1, 7, len(run) // 2 + 1, len(run)) if size < 20_000 else (4096, len(run)):
        stream = PayloadStream([len(payload) for payload in sent])
        pieces = [run[i : i + cut] for i in range(0, len(run), cut)]
        assert [payload for piece in pieces for payload in stream.add(piece)] == sent


def test_frames_are_as_large_as_they_may_be_and_the_last_holds_the_rest() -> None:
    frames, summary = written(header_of(), limits=SMALL_FRAMES)
    assert [len(frame.data) for frame in frames] == [64] * 6 + [summary.payload_bytes + 4 - 6 * 64]
    assert [frame.sequence for frame in frames] == list(range(7))
    digest = header_of().request_digest
    assert all(frame.checksum == frame.computed_checksum(digest) for frame in frames)


def test_small_segments_share_a_frame_and_large_ones_leave_at_once() -> None:
    frames, summary = written(header_of(layers=60), limits=Limits())
    assert summary.payload_bytes == 120 * 96 and len(frames) == 3
    header = header_of(positions=200)
    writer = SliceWriter(header, CODECS.get("raw"), Limits())
    for i, spec in enumerate(header.specs):
        (frame,) = writer.write(spec, tensor_of(spec, i))
        assert 6_400 < len(frame.data) < MIB


@pytest.mark.parametrize(("positions", "first"), [(2046, 0), (2047, 1)])
def test_a_frame_leaves_before_the_last_segment_once_it_has_4096_bytes(positions: int, first: int) -> None:
    code = replace(spec_of(SegmentKind.CODE, positions, "float16"), shape=(positions, 1))
    key = replace(spec_of(SegmentKind.KEY, positions), segment_id=1)
    header = replace(excerpt_header(), specs=(code, key))
    writer = SliceWriter(header, CODECS.get("raw"), Limits())
    assert len(writer.write(code, tensor_of(code))) == first  # two bytes a position, and two tell the length
    assert len(writer.write(key, tensor_of(key))) == 1


def test_padded_slices_have_frames_of_the_same_sizes_whatever_their_numbers() -> None:
    header = header_of(positions=40, layers=3)
    sizes = set()
    for scale in (0.0, 1.0, 1e30):
        writer = SliceWriter(header, Padded(CODECS.get("lossless")), Limits())
        frames = [f for s in header.specs for f in writer.write(s, scale * tensor_of(s))]
        sizes.add(tuple(len(frame.data) for frame in frames))
    assert len(sizes) == 1


def test_the_share_that_arrived_is_counted_by_whole_segments() -> None:
    header = header_of(layers=2)
    frames, summary = written(header)
    assembler = SliceAssembler(header, CODECS.get("raw"), SMALL_FRAMES)
    shares, payload = [], []
    for frame in frames:
        assembler.add(frame)
        shares.append(assembler.partial())
        payload.append(assembler.payload_bytes)
    assert shares == [0, 0.25, 0.25, 0.5, 0.75, 0.75, 1.0]
    assert payload == [int(share * 384) for share in shares]
    assembler.finish(summary)


def test_a_slice_cut_short_does_not_finish() -> None:
    header = header_of()
    frames, summary = written(header)
    assembler = SliceAssembler(header, CODECS.get("raw"), SMALL_FRAMES)
    for frame in frames[:-1]:
        assembler.add(frame)
    assert assembler.partial() == 0.75
    with pytest.raises(BadPayload):
        assembler.finish(summary)


def test_an_assembler_refuses_a_slice_over_the_limits() -> None:
    with pytest.raises(TooLarge):
        SliceAssembler(header_of("raw"), CODECS.get("raw"), Limits(max_slice_bytes=10))


def test_a_writer_keeps_to_the_headers_order() -> None:
    header = header_of()
    writer = SliceWriter(header, CODECS.get("raw"), Limits())
    with pytest.raises(ValueError, match="not due"):
        writer.write(header.specs[1], tensor_of(header.specs[1]))
    with pytest.raises(ValueError, match="0 of 4"):
        writer.trailer({})
