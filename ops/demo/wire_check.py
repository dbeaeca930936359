"""Looks for the documents in what crossed the wire: every message, as it was before encryption."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.demo.needles import Needle, find, needles_of
from ops.demo.samples import DemoSample

if TYPE_CHECKING:
    from kvwire.codec import Codec


@dataclass(frozen=True, slots=True)
class WireCheck:
    """What was searched and what was found.

    messages, bytes: serialised protobuf messages, both ways. segments: decoded and searched as well.
    needles: byte strings looked for, all of documents. found: "<what> of <document>", each once.
    questions_seen: how many of the questions the same search finds among what was sent; it must be all of
        them, or the search itself does not work.
    """

    messages: int
    bytes: int
    segments: int
    documents: int
    needles: int
    found: tuple[str, ...]
    questions: int
    questions_seen: int

    @property
    def passed(self) -> bool:
        """Nothing of a document was found, by a search that finds what is there."""
        return not self.found and self.messages > 0 and self.questions_seen == self.questions

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self) | {"passed": self.passed}


def check_wire(
    capture: Path,
    samples: Sequence[DemoSample],
    questions: Sequence[str],
    tokenisers: Sequence[Callable[[str], Sequence[int]]],
    codecs: Sequence["Codec"] = (),
) -> WireCheck:
    """Search a capture of `edge_node.channel` for everything of `samples` that `questions` do not say.

    `codecs` are those that the bundle brings.
    """
    from edge_node.channel import Direction, read_capture

    captured = list(read_capture(capture))
    sent = [message for direction, message in captured if direction is Direction.SENT]
    received = [message for direction, message in captured if direction is Direction.RECEIVED]
    segments = list(_segments(sent, received, codecs))
    said = "\n".join(questions)
    needles = [needle for sample in samples for needle in needles_of(sample, said, tokenisers)]
    found = find(needles, [*sent, *received, *segments])
    asked = {Needle(question.encode(), "question", "") for question in questions}
    return WireCheck(
        messages=len(captured),
        bytes=sum(len(message) for _, message in captured),
        segments=len(segments),
        documents=len(samples),
        needles=len(needles),
        found=tuple(dict.fromkeys(f"{needle.what} of {needle.document}" for needle in found)),
        questions=len(asked),
        questions_seen=len(find(asked, sent)),
    )


def _segments(sent: Sequence[bytes], received: Sequence[bytes], codecs: Sequence["Codec"]) -> Iterator[bytes]:
    """Every segment's bytes twice: as they were put together from frames, and decoded."""
    from google.protobuf.message import DecodeError

    from kvwire.codec import CodecRegistry
    from kvwire.codec.base import to_bytes
    from kvwire.errors import KvwireError
    from kvwire.limits import Limits
    from kvwire.plan import Plan
    from kvwire.segment import SliceHeader
    from kvwire.serde import share_request_from_proto, share_response_from_proto
    from kvwire.slice_io import Frame, PayloadStream, payload_codec
    from kvwire.v1 import sharer_pb2 as pb

    registry = CodecRegistry(codecs)
    plans: dict[bytes, Plan] = {}
    for message in sent:
        try:
            request = share_request_from_proto(pb.ShareRequest.FromString(message), Limits())
        except (DecodeError, KvwireError):
            continue  # another kind of request
        plans[request.digest()] = request.plan
    stream: PayloadStream | None = None
    for message in received:
        try:
            part = share_response_from_proto(pb.ShareResponse.FromString(message), Limits())
        except (DecodeError, KvwireError):
            continue  # another kind of reply; as a message it was searched all the same
        if isinstance(part, SliceHeader):
            plan = plans[part.request_digest]
            codec = payload_codec(plan, registry.get(plan.codec))
            stream, specs = PayloadStream([codec.max_bytes(spec) for spec in part.specs]), iter(part.specs)
        elif isinstance(part, Frame) and stream is not None:
            for payload in stream.add(part.data):
                yield payload
                yield to_bytes(codec.decode(payload, next(specs)))
