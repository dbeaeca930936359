"""The promises of the design on captured bytes of a real run: no text down, no text up, no more positions than allowed.

The wire is what `edge_node.channel` keeps: every serialised message, both ways, Ray and mutual TLS in between.
"""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from edge_node import Ask, Assistant, Client, EdgeConfig
from edge_node.channel import Direction, read_capture
from fuser.receiver import Receiver
from fuser.sharer import Sharer
from kvwire.errors import NotFound
from kvwire.segment import SliceKind
from kvwire.v1 import sharer_pb2 as pb
from tests.cloud_fixture import CAPS
from tests.e2e.conftest import CANARIES
from tests.e2e.leaks import PACKINGS, finds, token_needles

QUESTION = "Who keeps the spare key of the boat house?"
NOTES = "Mein Geheimnis: parallaxe-8264-basilisk, 我的笔记只留在这里 🪔🦤."
CODECS = ("raw", "lossless", "int8")


@dataclasses.dataclass(frozen=True)
class Run:
    """What crossed the wire: the slices of every canary document, kind and codec; and all else (`other`).

    Describe, its reply, and requests that were refused with their status are `other`.
    """

    requests: tuple[bytes, ...]
    replies: tuple[bytes, ...]
    other: tuple[bytes, ...]

    @property
    def wire(self) -> bytes:
        return b"\xff".join((*self.requests, *self.replies, *self.other))

    @property
    def parts(self) -> list[pb.ShareResponse]:
        return [pb.ShareResponse.FromString(reply) for reply in self.replies]

    @property
    def headers(self) -> list[pb.SliceHeader]:
        return [part.header for part in self.parts if part.HasField("header")]


@pytest.fixture(scope="module")
def run(edge_config: EdgeConfig, local_receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("capture")
    slices, other = directory / "slices.bin", directory / "other.bin"
    for codec in CODECS:
        share = dataclasses.replace(edge_config.share, codec=codec)
        config = dataclasses.replace(edge_config, share=share, capture=str(slices))
        with Assistant(config, local_receiver, Client(config)) as assistant:
            for document, kind in itertools.product(CANARIES, SliceKind):
                answer = assistant.ask(Ask(QUESTION, document=document, notes=NOTES, kind=kind))
                assert (answer.source, answer.codec) == ("fused", codec)
    config = dataclasses.replace(edge_config, capture=str(other))
    with Assistant(config, local_receiver, Client(config)) as assistant:
        assistant.client.describe()
        for missing in ("nobody's", "secret-3"):
            with pytest.raises(NotFound):
                assistant.ask(Ask(QUESTION, document=missing, notes=NOTES))
        # Six letters stand for a word, so a question that no canary stands in finds one's passage.
        answer = assistant.ask(Ask("Where is ormendipity?", search=3, notes=NOTES))
        assert answer.source == "fused" and [one["document"] for one in answer.documents] == ["secret-1"]
    return _read(slices, other)


def _read(slices: Path, other: Path | None = None) -> Run:
    captured = list(read_capture(slices))
    return Run(
        tuple(c.message for c in captured if c.direction is Direction.SENT),
        tuple(c.message for c in captured if c.direction is Direction.RECEIVED),
        () if other is None else tuple(c.message for c in read_capture(other)),
    )


@pytest.fixture(scope="module")
def tokenizers(local_sharer: Sharer, local_receiver: Receiver) -> tuple[Any, Any]:
    return local_sharer.tokenizer, local_receiver.tokenizer


@pytest.mark.parametrize("name", CANARIES)
def test_no_text_down_nothing_of_a_document_is_on_the_wire(
    run: Run, name: str, tokenizers: tuple[Any, Any]
) -> None:
    assert len(run.replies) > 30
    assert finds(CANARIES[name], tokenizers, run.wire) == []


def test_no_text_up_nothing_of_the_notes_is_on_the_wire(run: Run, tokenizers: tuple[Any, Any]) -> None:
    assert finds(NOTES, tokenizers, run.wire) == []


def test_the_search_finds_what_is_there(run: Run, tokenizers: tuple[Any, Any]) -> None:
    """The question is shared, so it is on the wire; and each way of hiding a canary is found."""
    assert finds(QUESTION, (), b"".join(run.requests))
    text = CANARIES["secret-1"]
    for tokenizer in tokenizers:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for name, pack in PACKINGS.items():
            found = finds(text, [tokenizer], run.wire + pack(ids[3:9]) + b"\x00")
            assert any(name in find for find in found), name
    for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le"):
        assert finds(text, (), run.wire + text[20:40].encode(encoding))
    packed = pb.ShareRequest(codec_hash=text).SerializeToString()
    assert finds(text, (), packed)
    assert all(needle for _, needle in token_needles(text, tokenizers[0]))


def test_every_request_names_documents_and_holds_only_the_question(run: Run) -> None:
    for message in run.requests:
        request = pb.ShareRequest.FromString(message)
        cloud, shared = request.sections
        assert (cloud.visibility, cloud.WhichOneof("body")) == (pb.VISIBILITY_CLOUD, "document_id")
        assert (shared.visibility, shared.text) == (pb.VISIBILITY_SHARED, QUESTION)
        assert not _has_unknown_fields(request)


def test_someone_elses_document_and_none_at_all_get_the_same_bytes(run: Run) -> None:
    _, _, _, nobodys, _, someone_elses, *_ = run.other
    assert nobodys == someone_elses


def test_no_string_came_back_and_all_bytes_are_digests_versions_or_encoded_numbers(run: Run) -> None:
    for part in run.parts:
        assert not _has_unknown_fields(part)
        for name, value in _leaves(part):
            assert not isinstance(value, str), name
            if isinstance(value, bytes):
                assert name == "data" or (
                    name in ("request_digest", "digest", "versions") and len(value) == 16
                ), name
    assert sum(part.HasField("trailer") for part in run.parts) == len(CODECS) * len(CANARIES) * len(SliceKind)


def test_no_field_of_a_share_reply_could_carry_text_or_token_ids() -> None:
    found: dict[str, str] = {}
    todo, seen = [pb.ShareResponse.DESCRIPTOR], set()
    while todo:
        descriptor: Descriptor = todo.pop()
        if descriptor.full_name in seen:
            continue
        seen.add(descriptor.full_name)
        for field in descriptor.fields:
            if field.message_type is not None:
                todo.append(field.message_type)
            elif field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
                found[f"{descriptor.name}.{field.name}"] = "string or bytes"
            elif field.label == FieldDescriptor.LABEL_REPEATED:
                found[f"{descriptor.name}.{field.name}"] = "list of numbers"
    assert found == {
        "SliceHeader.request_digest": "string or bytes",
        "SliceHeader.versions": "string or bytes",  # 16 bytes of chance a document
        "SegmentRun.kinds": "list of numbers",
        "SegmentRun.layers": "list of numbers",
        "SegmentRun.shape": "list of numbers",
        "Frame.data": "string or bytes",
        "SliceTrailer.digest": "string or bytes",
    }


def test_no_more_positions_are_sent_than_the_export_policy_allows(
    run: Run, captured_config: EdgeConfig, capture: Path, local_receiver: Receiver, local_sharer: Sharer
) -> None:
    question = local_sharer.tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    tail = local_sharer.tokenizer("<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)[
        "input_ids"
    ]
    assert len(run.headers) == len(CODECS) * len(CANARIES) * len(SliceKind)
    for header in run.headers:
        assert len({run.shape[-2] for run in header.segments}) == 1
        positions = header.segments[0].shape[-2]
        if header.kind != pb.SLICE_KIND_SHARED:
            assert positions <= 12 and not header.spans and not header.tail
        else:
            assert positions == len(header.spans) + header.tail
            assert len(header.spans) <= len(question) + 1 and header.tail <= len(tail) + 1
            assert all(span.end <= len(QUESTION) for span in header.spans)
    with Assistant(captured_config, local_receiver, Client(captured_config)) as assistant:
        answer = assistant.ask(QUESTION, document="capped")
    assert answer.positions == CAPS["acme", "capped"] < 12
    assert [header.segments[0].shape[0] for header in _read(capture).headers] == [CAPS["acme", "capped"]]


def test_of_a_conversation_questions_go_up_and_no_answer_that_notes_stood_beside(
    captured_config: EdgeConfig, capture: Path, local_receiver: Receiver, tokenizers: tuple[Any, Any]
) -> None:
    first = "Who keeps the oars?"
    with Assistant(captured_config, local_receiver, Client(captured_config)) as assistant:
        with assistant.conversation("secret-1", kind=SliceKind.DRAFT) as talk:
            alone = talk.ask(first)
            talk.ask(QUESTION)
        with assistant.conversation("secret-1", kind=SliceKind.DRAFT, notes=NOTES) as talk:
            talk.ask(Ask("What do I owe?", notes=NOTES, source="receiver-only"))
            talk.ask(first)
            assert talk.ask(QUESTION).turns_sent == 1
    run = _read(capture)
    sent = [[s.text for s in pb.ShareRequest.FromString(m).sections if s.text] for m in run.requests]
    head = f"Earlier questions and answers:\nQuestion: {first}"
    assert sent == [[first], [f"{head}\nAnswer: {alone.text}", QUESTION], [first], [head, QUESTION]]
    assert finds(NOTES, tokenizers, run.wire) == finds(CANARIES["secret-1"], tokenizers, run.wire) == []


def test_a_receiver_only_answer_sends_nothing(
    captured_config: EdgeConfig, capture: Path, local_receiver: Receiver
) -> None:
    with Assistant(captured_config, local_receiver, Client(captured_config)) as assistant:
        answer = assistant.ask(Ask(QUESTION, document="secret-1", notes=NOTES, source="receiver-only"))
    assert answer.bytes_sent == answer.bytes_received == 0 and capture.read_bytes() == b""


def _leaves(message: Message) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for field, value in message.ListFields():
        for item in value if field.label == FieldDescriptor.LABEL_REPEATED else (value,):
            found += _leaves(item) if field.message_type is not None else [(field.name, item)]
    return found


def _has_unknown_fields(message: Message) -> bool:
    if len(UnknownFieldSet(message)):
        return True
    for field, value in message.ListFields():
        if field.message_type is not None:
            items = value if field.label == FieldDescriptor.LABEL_REPEATED else (value,)
            if any(_has_unknown_fields(item) for item in items):
                return True
    return False
