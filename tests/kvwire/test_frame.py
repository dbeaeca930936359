import random
from dataclasses import replace

import pytest
import torch

from kvwire.errors import BadPayload, TooLarge
from kvwire.frame import SliceAssembler, frames_of
from kvwire.limits import Limits
from kvwire.segment import Segment, SliceHeader
from kvwire.writer import SliceWriter
from tests.kvwire.samples import (
    CODECS,
    REQUEST_ID,
    SMALL_FRAMES,
    excerpt_header,
    header_of,
    spec_of,
    tensor_of,
    written,
)


def assemble(header: SliceHeader, codec: str = "raw") -> list[Segment]:
    frames, summary = written(header, codec)
    assembler = SliceAssembler(header, CODECS.get(codec), SMALL_FRAMES)
    segments = [segment for frame in frames if (segment := assembler.add(frame)) is not None]
    assembler.finish(summary)
    assert assembler.partial() == 1.0
    assert assembler.payload_bytes == summary.payload_bytes
    return segments


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


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 128, 1000])
def test_frames_cover_the_payload_in_order(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    frames = list(frames_of(REQUEST_ID, spec_of(), payload, 5, 64))
    assert b"".join(frame.data for frame in frames) == payload
    assert [frame.sequence for frame in frames] == list(range(5, 5 + max(1, -(-size // 64))))
    assert all(frame.total == size and len(frame.data) <= 64 for frame in frames)
    assert all(frame.checksum == frame.computed_checksum(REQUEST_ID) for frame in frames)


def test_the_share_that_arrived_is_counted_by_whole_segments() -> None:
    header = header_of(layers=2)
    frames, summary = written(header)
    assembler = SliceAssembler(header, CODECS.get("raw"), SMALL_FRAMES)
    shares = []
    for frame in frames:
        assembler.add(frame)
        shares.append(assembler.partial())
    assert shares == [0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1.0]
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
        writer.summary({})
