"""What a cache holds: items with the place of their features, and what the Sharer attended to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class CachedQuestion:
    """A cached question over a document.

    scores: (document positions,) float32, the summed attention rows on the document. draft: tokens of the Sharer's own
    short answer, none where the cache keeps no drafts; written: its text. drafted: rows of the item's features that are
    those of its positions, int64. likely: as of a `Reading`. asked: row of the prompt's last position, where the Sharer
    has read document and question.
    """

    text: str
    answers: tuple[str, ...]
    scores: Tensor
    draft: tuple[int, ...] = ()
    written: str = ""
    drafted: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64, device="cpu"))
    likely: tuple[float, ...] = ()
    asked: int = -1


@dataclass(frozen=True, slots=True)
class Cached:
    """A cached document: rows [start, start + count) of the features; spans (count, 2) are its tokens' characters.

    Behind these rows are those of its questions: where each is asked, and its draft.
    """

    source: str
    text: str
    start: int
    count: int
    spans: Tensor
    questions: tuple[CachedQuestion, ...]

    @property
    def rows(self) -> int:
        return self.count + sum(1 + len(question.draft) for question in self.questions)


@dataclass(frozen=True, slots=True)
class CachedPrompt:
    """A cached shared prompt and the response to it.

    Rows [start, start + count) are the features of the shared positions and then of the `tail` template positions
    after them. spans: (count - tail, 2) int64, the shared tokens' characters within `text`, the body of the one
    question section. first: where the shared positions begin in the Sharer's prompt; they run on to its end.
    """

    source: str
    text: str
    response: str
    start: int
    count: int
    spans: Tensor
    tail: int
    first: int

    @property
    def rows(self) -> int:
        return self.count


CachedItem = Cached | CachedPrompt


def to_row(item: CachedItem) -> dict[str, Any]:
    row: dict[str, Any] = {"source": item.source, "text": item.text, "start": item.start, "count": item.count}
    row["spans"] = item.spans.tolist()
    if isinstance(item, CachedPrompt):
        return row | {"response": item.response, "tail": item.tail, "first": item.first}
    return row | {"questions": [_asked_row(question) for question in item.questions]}


def from_row(row: dict[str, Any]) -> CachedItem:
    """Inverse of `to_row`, up to the rounding of the scores."""
    spans = torch.tensor(row["spans"], dtype=torch.int64, device="cpu").reshape(-1, 2)
    shared = {name: row[name] for name in ("source", "text", "start", "count")} | {"spans": spans}
    if "tail" in row:
        own = {name: row[name] for name in ("response", "tail", "first")}
        return CachedPrompt(**shared, **own)
    asked: list[CachedQuestion] = []
    after = shared["count"]
    for q in row["questions"]:
        scores, draft = torch.tensor(q["scores"], device="cpu"), tuple(q.get("draft", ()))
        drafted = torch.arange(after + 1, after + 1 + len(draft), device="cpu")
        written, likely = q.get("written", ""), tuple(q["likely"])
        read = scores, draft, written, drafted, likely, after
        asked.append(CachedQuestion(q["text"], tuple(q["answers"]), *read))
        after += 1 + len(draft)
    return Cached(**shared, questions=tuple(asked))


def _asked_row(question: CachedQuestion) -> dict[str, Any]:
    scores = [round(score, 5) for score in question.scores.tolist()]
    likely = [round(one, 5) for one in question.likely]
    row = {"text": question.text, "answers": question.answers, "scores": scores, "likely": likely}
    return row | {"draft": question.draft, "written": question.written} if question.draft else row


def moved(item: CachedItem, rows: int, source: str) -> CachedItem:
    """The same item, its features `rows` further on, under the name of a run's source."""
    return replace(item, start=item.start + rows, source=source)
