"""The check of a capture: a document that crossed in any message or segment is found."""

from pathlib import Path

import torch

from edge_node.channel import Capture, Direction
from kvwire.codec import CodecRegistry
from kvwire.identity import ModelRef
from kvwire.limits import Limits
from kvwire.messages import ShareRequest
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SegmentKind, SegmentSpec, SliceHeader, SliceKind
from kvwire.serde import share_request_to_proto, share_response_to_proto
from kvwire.slice_io import SliceWriter
from ops.demo.samples import load_samples
from ops.demo.wire_check import WireCheck, check_wire

SAMPLES = load_samples()
QUESTIONS = [SAMPLES[0].questions[0].text]


def checked(capture: Path, sent: list[bytes], received: list[bytes]) -> WireCheck:
    writer = Capture(capture)
    for message in sent:
        writer.add(Direction.SENT, message)
    for message in received:
        writer.add(Direction.RECEIVED, message)
    writer.close()
    return check_wire(capture, SAMPLES, QUESTIONS, [lambda text: [ord(letter) for letter in text]])


def request_for(codec: str) -> ShareRequest:
    return ShareRequest(
        request_id=bytes(16),
        sharer=ModelRef("s", "r"),
        bundle_hash="ab" * 32,
        codec_hash=CodecRegistry().get(codec).parameters_hash,
        kind=SliceKind.EXCERPT,
        plan=Plan(codec=codec),
        sections=(Section(Role.QUESTION, Visibility.SHARED, text=QUESTIONS[0]),),
    )


def sent_for(codec: str) -> list[bytes]:
    return [share_request_to_proto(request_for(codec)).SerializeToString()]


def slice_of(tensor: torch.Tensor, codec_name: str) -> list[bytes]:
    spec = SegmentSpec(0, SegmentKind.CODE, -1, tuple(tensor.shape), "float32")
    codec = CodecRegistry().get(codec_name)
    header = SliceHeader(request_for(codec_name).digest(), SliceKind.EXCERPT, (spec,))
    writer = SliceWriter(header, codec, Limits())
    frames = writer.write(spec, tensor)
    summary = writer.trailer({"queue": 0.0, "prefill": 0.0, "encode": 0.0})
    return [share_response_to_proto(part).SerializeToString() for part in (header, *frames, summary)]


def test_an_honest_slice_passes(tmp_path: Path) -> None:
    noise = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    check = checked(tmp_path / "c", sent_for("lossless"), slice_of(noise, "lossless"))
    assert check.passed
    assert check.segments == 2
    assert check.needles > 1_000


def test_a_canary_in_a_message_is_found(tmp_path: Path) -> None:
    message = b"\x0a\x20" + SAMPLES[1].canary.encode()
    check = checked(tmp_path / "c", [QUESTIONS[0].encode()], [message])
    assert check.found == (f"canary of {SAMPLES[1].id}",)
    assert not check.passed


def test_a_document_in_a_compressed_segment_is_found(tmp_path: Path) -> None:
    text = SAMPLES[2].text.encode() * 20  # repeated, so that compression hides it
    text += bytes(-len(text) % 4)
    hidden = torch.frombuffer(bytearray(text), dtype=torch.float32).reshape(1, -1)
    messages = slice_of(hidden, "lossless")
    assert not any(text[:16] in message for message in messages)
    check = checked(tmp_path / "c", sent_for("lossless"), messages)
    assert f"canary of {SAMPLES[2].id}" in check.found


def test_a_capture_without_the_questions_proves_nothing(tmp_path: Path) -> None:
    assert not checked(tmp_path / "c", [b"something else"], []).passed
