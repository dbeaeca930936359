"""What was asked and what came of it; and the checker: every answer is of its own request, says why not, or failed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import xxhash

from edge_node import answer as answers
from kvwire.errors import CATALOGUE
from kvwire.segment import Segment, SliceHeader
from ops.chaos.outcome import Ending

if TYPE_CHECKING:
    from edge_node import Answer
    from kvwire.segment import SliceTrailer

REASONS: Final = frozenset(
    {entry.reason for entry in CATALOGUE.values()}
    | {answers.REQUESTED, answers.NOTHING_TO_SHARE, answers.EMPTY, answers.NOTES}
    | {answers.NOTHING_FOUND, answers.NO_PLAN}
)
"""Every reason that an answer may give for having no slice."""
GRACE_S: Final = 2.0
"""Past its deadline a request has so long for the Receiver's own steps, on a machine with others at work."""


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One request and its end: a line of the history.

    Attributes:
        index: of the fault that it was asked under; with the seed it makes it happen again.
        request_id: of the last attempt, in hex; empty where nothing was sent.
        prompt: hash of all that was asked.
        versions: of the document, at any moment between question and answer.
        segments: digests of the header and of each segment that was taken in; empty if none was.
        source, reason, text: of the answer. error: of the catalogue, or the name of a class that is not.
        seconds, deadline_s: it took, and it had.
    """

    index: int
    fault: str
    request_id: str
    prompt: str
    versions: tuple[str, ...]
    segments: tuple[str, ...]
    source: str | None
    reason: str | None
    text: str | None
    error: str | None
    seconds: float
    deadline_s: float

    def to_json(self) -> str:
        """One line; texts as hashes, like the prompt."""
        told = dataclasses.asdict(self)
        told["versions"] = list(map(hash_of, self.versions))
        told["text"] = None if self.text is None else hash_of(self.text)
        return json.dumps(told)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a request must give, made without a wire."""

    segments: tuple[str, ...]
    text: str


class Checker:
    """Holds each answer to what its request must give. One for a whole run: no request id may come twice.

    Args:
        expected: for a prompt's hash and a version of its document.
    """

    def __init__(self, expected: Callable[[str, str], Expected]) -> None:
        self._expected = expected
        self._ids: set[str] = set()

    def ending(self, asked: HistoryLine) -> tuple[Ending, str]:
        """How it ended, and why."""
        if asked.request_id and asked.request_id in self._ids:
            return Ending.WRONG, f"request id {asked.request_id} twice"
        self._ids.add(asked.request_id)
        late = asked.seconds - asked.deadline_s
        if late > GRACE_S:
            return Ending.HANG, f"{late:.1f} s past its deadline"
        if asked.error is not None:
            known = asked.error in REASONS
            return (Ending.FAILED if known else Ending.CRASH), asked.error
        if asked.source != answers.FUSED:
            if asked.reason not in REASONS:
                return Ending.WRONG, f"{asked.source} for the reason {asked.reason!r}"
            return Ending.ALONE, str(asked.reason)
        if asked.reason is not None:
            return Ending.WRONG, f"fused, and gives the reason {asked.reason}"
        wanted = [self._expected(asked.prompt, version) for version in asked.versions]
        if not any(one.segments == asked.segments for one in wanted):
            return Ending.WRONG, "fused from segments that are not its own"
        if not any((one.segments, one.text) == (asked.segments, asked.text) for one in wanted):
            return Ending.WRONG, "its own segments, and another answer"
        return Ending.FUSED, ""


def hash_of(text: str) -> str:
    """16 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_of(part: SliceHeader | Segment | SliceTrailer) -> str | None:
    """Of what is taken in: a header but for the id of its request, a segment with all its bits; None of a trailer."""
    if isinstance(part, Segment):
        return xxhash.xxh3_128_hexdigest(repr(part.spec).encode() + _bytes(part.tensor))
    if isinstance(part, SliceHeader):
        kept = (part.kind, part.specs, part.spans, part.tail)
        return xxhash.xxh3_128_hexdigest(repr(kept).encode())
    return None


def said(answer: Answer) -> dict[str, Any]:
    """The fields of `HistoryLine` that an answer gives."""
    return {"source": answer.source, "reason": answer.reason, "text": answer.text, "error": None}


def _bytes(tensor: Any) -> bytes:
    import torch

    return bytes(tensor.contiguous().view(torch.uint8).numpy().tobytes())
