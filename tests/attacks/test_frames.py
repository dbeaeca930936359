"""Frames changed, lost, repeated or forged: nothing of them is ever fused."""

import random
import tracemalloc
from dataclasses import fields, replace

import pytest

from kvwire.errors import BadChecksum, BadPayload, KvwireError, TooLarge, WireError
from kvwire.frame import Frame, SliceAssembler
from kvwire.segment import SliceHeader, SliceSummary
from tests.kvwire.samples import CODECS, SMALL_FRAMES, excerpt_header, header_of, written

DIGEST = header_of().request_digest


def assembler_of(header: SliceHeader, codec: str = "raw") -> SliceAssembler:
    return SliceAssembler(header, CODECS.get(codec), SMALL_FRAMES)


def receive(header: SliceHeader, frames: list[Frame], summary: SliceSummary) -> None:
    assembler = assembler_of(header)
    for frame in frames:
        assembler.add(frame)
    assembler.finish(summary)


def signed(frame: Frame, digest: bytes = DIGEST) -> Frame:
    """The frame with a checksum that fits: what a peer, not a fault, would send."""
    return replace(frame, checksum=frame.computed_checksum(digest))


@pytest.mark.parametrize("codec", CODECS.names())
def test_every_flipped_bit_of_a_frame_is_detected(codec: str) -> None:
    header = excerpt_header(codec, positions=2)
    frame = written(header, codec)[0][0]
    for bit in range(8 * len(frame.data)):
        data = bytearray(frame.data)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadChecksum):
            assembler_of(header, codec).add(replace(frame, data=bytes(data)))
    for field in fields(frame):
        if field.name == "data":
            continue
        for bit in range(32 if field.name in ("sequence", "segment_id") else 64):
            changed = replace(frame, **{field.name: getattr(frame, field.name) ^ (1 << bit)})
            with pytest.raises(BadChecksum):
                assembler_of(header, codec).add(changed)


def test_a_frame_of_another_request_is_refused() -> None:
    header = header_of()
    frame = signed(written(header)[0][0], bytes(16))
    with pytest.raises(BadChecksum):
        assembler_of(header).add(frame)


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
            fault = chance.choice(["drop", "repeat", "swap", "cut", "flip", "misroute"])
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
            elif fault == "misroute":
                wrong[i] = replace(frame, segment_id=frame.segment_id ^ 1)
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


@pytest.mark.parametrize("total", [97, 1 << 20, 1 << 40, 2**64 - 1])
def test_a_frame_that_announces_more_than_the_codec_needs_is_refused_before_allocation(total: int) -> None:
    header = header_of()
    frame = signed(replace(written(header)[0][0], total=total))
    tracemalloc.start()
    with pytest.raises(TooLarge):
        assembler_of(header).add(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 16


def test_a_frame_over_the_limit_is_refused() -> None:
    header = header_of()
    frame = signed(replace(written(header)[0][0], data=bytes(65)))
    with pytest.raises(TooLarge, match="frame bytes: 65 is over the limit of 64"):
        assembler_of(header).add(frame)


@pytest.mark.parametrize(
    "change",
    [
        {"data": b""},
        {"total": 10},
        {"total": 0},
        {"offset": 1},
        {"sequence": 1},
        {"segment_id": 1},
        {"data": b"x" * 8, "total": 8},
    ],
    ids=["empty", "past the end", "total of zero", "gap", "sequence", "segment", "short segment"],
)
def test_a_forged_frame_is_refused(change: dict[str, object]) -> None:
    header = header_of()
    with pytest.raises(BadPayload):
        assembler_of(header).add(signed(replace(written(header)[0][0], **change)))


def test_a_frame_past_the_end_of_its_segment_is_refused_before_it_is_stored() -> None:
    header = header_of()
    frames = written(header)[0]
    with pytest.raises(BadPayload, match="past the end"):
        assembler_of(header).add(signed(replace(frames[0], total=10)))
    assembler = assembler_of(header)
    assembler.add(frames[0])
    with pytest.raises(BadPayload, match="past the end"):
        assembler.add(signed(replace(frames[1], data=bytes(64))))


def test_a_segment_that_changes_its_size_on_the_way_is_refused() -> None:
    header = header_of()
    frames = written(header)[0]
    assembler = assembler_of(header)
    assembler.add(frames[0])
    with pytest.raises(BadPayload, match="size"):
        assembler.add(signed(replace(frames[1], total=90, data=frames[1].data[:26])))


def test_a_frame_after_the_last_segment_is_refused() -> None:
    header = header_of()
    frames, _ = written(header)
    assembler = assembler_of(header)
    for frame in frames:
        assembler.add(frame)
    with pytest.raises(BadPayload, match="after the last"):
        assembler.add(signed(replace(frames[-1], sequence=len(frames))))


def test_a_summary_that_does_not_fit_is_refused() -> None:
    header = header_of()
    frames, summary = written(header)
    for change in (
        {"digest": bytes(16)},
        {"frames": 7},
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
    frame = written(header, "lossless")[0][0]
    garbage = signed(replace(frame, data=b"\xff" * len(frame.data)), header.request_digest)
    if garbage.total > len(garbage.data):
        garbage = signed(replace(garbage, total=len(garbage.data)), header.request_digest)
    with pytest.raises(KvwireError):
        assembler_of(header, "lossless").add(garbage)
