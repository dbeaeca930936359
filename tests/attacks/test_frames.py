"""Frames changed, lost, repeated or forged: nothing of them is ever fused."""

import random
import tracemalloc
from dataclasses import replace

import pytest

from kvwire.codec import Raw
from kvwire.errors import BadChecksum, BadPayload, KvwireError, TooLarge, WireError
from kvwire.limits import Limits
from kvwire.segment import SegmentSpec, SliceHeader, SliceTrailer
from kvwire.slice_io import Frame, PayloadStream, SliceAssembler, length_bytes
from tests.kvwire.samples import CODECS, SMALL_FRAMES, excerpt_header, header_of, with_length, written

DIGEST = header_of().request_digest


def assembler_of(header: SliceHeader, codec: str = "raw") -> SliceAssembler:
    return SliceAssembler(header, CODECS.get(codec), SMALL_FRAMES)


def receive(header: SliceHeader, frames: list[Frame], summary: SliceTrailer) -> None:
    assembler = assembler_of(header)
    for frame in frames:
        assembler.add(frame)
    assembler.finish(summary)


@pytest.mark.parametrize("codec", CODECS.names())
def test_every_flipped_bit_of_a_frame_is_detected(codec: str) -> None:
    header = excerpt_header(codec, positions=2)
    frame = written(header, codec)[0][0]
    for bit in range(8 * len(frame.data)):
        data = bytearray(frame.data)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadChecksum):
            assembler_of(header, codec).add(replace(frame, data=bytes(data)))
    for field, bits in (("sequence", 32), ("checksum", 64)):
        for bit in range(bits):
            changed = replace(frame, **{field: getattr(frame, field) ^ (1 << bit)})
            with pytest.raises(BadChecksum):
                assembler_of(header, codec).add(changed)


def test_a_frame_of_another_request_is_refused() -> None:
    header = header_of()
    first = written(header)[0][0]
    with pytest.raises(BadChecksum):
        assembler_of(header).add(Frame.of(bytes(16), first.sequence, first.data))


def test_lost_repeated_and_swapped_frames_are_refused() -> None:
    header = header_of(positions=20, layers=1)
    frames, summary = written(header)
    receive(header, frames, summary)
    for i in range(len(frames)):
        for wrong in (
            frames[:i] + frames[i + 1 :],
            frames[: i + 1] + frames[i:],
            frames[:i] + frames[i + 1 : i + 2] + frames[i : i + 1] + frames[i + 2 :],
        ):
            if wrong != frames:
                with pytest.raises(BadPayload):
                    receive(header, wrong, summary)


def test_many_random_faults_never_give_wrong_content() -> None:
    chance = random.Random(7)
    header = header_of(positions=12, layers=2)
    frames, summary = written(header)
    for _ in range(500):
        wrong = list(frames)
        for _ in range(chance.randint(1, 3)):
            i = chance.randrange(len(wrong))
            fault = chance.choice(["drop", "repeat", "swap", "cut", "flip", "renumber"])
            frame = wrong[i]
            if fault == "drop" and len(wrong) > 1:
                del wrong[i]
            elif fault == "repeat":
                wrong.insert(chance.randrange(len(wrong)), frame)
            elif fault == "swap":
                j = chance.randrange(len(wrong))
                wrong[i], wrong[j] = wrong[j], wrong[i]
            elif fault == "cut":
                wrong[i] = replace(frame, data=frame.data[: chance.randrange(len(frame.data) or 1)])
            elif fault == "flip" and frame.data:
                k = chance.randrange(len(frame.data))
                flipped = bytes([frame.data[k] ^ (1 << chance.randrange(8))])
                wrong[i] = replace(frame, data=frame.data[:k] + flipped + frame.data[k + 1 :])
            elif fault == "renumber":
                wrong[i] = replace(frame, sequence=frame.sequence ^ 1)
        if wrong == frames:
            continue
        with pytest.raises(WireError):
            receive(header, wrong, summary)


def test_after_one_error_nothing_more_is_taken() -> None:
    header = header_of()
    frames, summary = written(header)
    assembler = assembler_of(header)
    with pytest.raises(BadChecksum):
        assembler.add(replace(frames[0], checksum=0))
    with pytest.raises(BadPayload, match="before"):
        assembler.add(frames[0])
    with pytest.raises(BadPayload):
        assembler.finish(summary)


@pytest.mark.parametrize("size", [97, 1 << 20, (1 << 34) - 1])
def test_a_payload_that_is_announced_larger_than_the_codec_needs_is_refused_before_allocation(
    size: int,
) -> None:
    header = header_of()
    frame = Frame.of(DIGEST, 0, length_bytes(size))
    assembler = assembler_of(header)
    tracemalloc.start()
    with pytest.raises(TooLarge, match="segment bytes"):
        assembler.add(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 16


@pytest.mark.parametrize(
    "length",
    [b"\x80\x80\x80\x80\x80", b"\xff" * 6, b"\xe0\x00", b"\x80\x00", b"\xe0\x80\x00"],
    ids=["no end", "no end of ones", "96 in two", "0 in two", "96 in three"],
)
def test_a_length_that_is_not_written_the_one_way_is_refused(length: bytes) -> None:
    for cut in range(1, len(length)):
        stream = PayloadStream([96])
        with pytest.raises(BadPayload, match="length"):
            stream.add(length[:cut])
            stream.add(length[cut:])


def test_a_frame_over_the_limit_is_refused() -> None:
    with pytest.raises(TooLarge, match="frame bytes: 65 is over the limit of 64"):
        assembler_of(header_of()).add(Frame.of(DIGEST, 0, bytes(65)))


@pytest.mark.parametrize(
    ("sequence", "data"),
    [(0, b""), (1, b"\0"), (0, with_length(b"")), (0, with_length(bytes(8)))],
    ids=["empty", "sequence", "empty segment", "short segment"],
)
def test_a_forged_frame_is_refused(sequence: int, data: bytes) -> None:
    with pytest.raises(BadPayload):
        assembler_of(header_of()).add(Frame.of(DIGEST, sequence, data))


@pytest.mark.parametrize("more", [b"\0", with_length(bytes(96))])
def test_bytes_after_the_last_segment_are_refused(more: bytes) -> None:
    header = header_of()
    frames, _ = written(header, limits=Limits())
    with pytest.raises(BadPayload, match="after the last"):
        SliceAssembler(header, CODECS.get("raw"), Limits()).add(Frame.of(DIGEST, 0, frames[0].data + more))
    assembler = SliceAssembler(header, CODECS.get("raw"), Limits())
    assert len(assembler.add(frames[0])) == len(header.specs)
    with pytest.raises(BadPayload, match="after the last"):
        assembler.add(Frame.of(DIGEST, 1, more))


def test_a_summary_that_does_not_fit_is_refused() -> None:
    header = header_of()
    frames, summary = written(header)
    for change in (
        {"digest": bytes(16)},
        {"frames": summary.frames + 1},
        {"payload_bytes": 1},
        {"positions": 4},
    ):
        with pytest.raises(WireError):
            receive(header, frames, replace(summary, **change))


def test_the_digest_binds_the_frames_to_their_header() -> None:
    header = header_of()
    frames, summary = written(header)
    other = replace(header, spans=((0, 3, 4), (0, 4, 5)))
    with pytest.raises(BadChecksum, match="digest"):
        receive(other, frames, summary)


def test_an_error_of_a_codec_is_of_the_tree() -> None:
    header = excerpt_header("lossless", positions=2)
    garbage = Frame.of(header.request_digest, 0, with_length(b"\xff" * 20))
    with pytest.raises(KvwireError):
        assembler_of(header, "lossless").add(garbage)


@pytest.mark.parametrize("error", [BadPayload("numbers"), RuntimeError("memory")])
def test_where_one_segment_does_not_decode_nothing_of_its_frame_counts_and_nothing_follows(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = header_of()
    frames, summary = written(header, limits=Limits())
    assembler = SliceAssembler(header, CODECS.get("raw"), Limits())
    decode = Raw.decode

    def fails_once(codec: Raw, payload: bytes, spec: SegmentSpec, device: str = "cpu") -> object:
        if spec.segment_id == 2:
            raise error
        return decode(codec, payload, spec, device)

    monkeypatch.setattr(Raw, "decode", fails_once)
    with pytest.raises(type(error)):
        assembler.add(frames[0])
    monkeypatch.undo()
    assert (assembler.partial(), assembler.payload_bytes) == (0.0, 0)
    with pytest.raises(BadPayload, match="before"):
        assembler.add(frames[0])
    with pytest.raises(BadPayload):
        assembler.finish(summary)
