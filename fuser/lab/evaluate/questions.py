"""The questions of one evaluation: drawn by a seed up to a limit, and what was left out counted by its reason."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain

from fuser.lab.data.document import Item
from fuser.prompts.choice import ChoiceItem


@dataclass(frozen=True, slots=True)
class DocumentQuestion:
    """A question over a cloud document.

    id: a hash of the document, the question and its answers. origin: as in `Item`.
    """

    id: str
    source: str
    document: str
    question: str
    answers: tuple[str, ...]
    origin: str = ""

    @property
    def own(self) -> str:
        """The document that it was written for."""
        return self.origin or self.document


@dataclass(frozen=True, slots=True)
class Drawn:
    """Questions in order, documents together. left_out: reason -> questions that came up and were not taken."""

    questions: tuple[DocumentQuestion, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """64 hex digits: SHA-256 of the questions, their documents and their answers, in order."""
        return digest([asdict(question) for question in self.questions])


def draw(
    items: Iterable[Item],
    limit: int | None,
    seed: int,
    unfit: Callable[[str, str], str | None] = lambda document, question: None,
    vary: Callable[[Item], Iterable[Item]] = lambda item: (item,),
    left_out: Counter[str] | None = None,
) -> Drawn:
    """Shuffle the documents, then take their questions until there are enough.

    Args:
        limit: questions at most; None takes all.
        unfit: for a document and a question the reason to leave it out, or None.
        vary: what is asked in an item's place, such as `fuser.lab.data.cases.Cases`.
        left_out: counted on from here; `vary` may count in it too.

    Raises:
        ValueError: no question is left.
    """
    shuffled = list(items)
    random.Random(seed).shuffle(shuffled)
    taken: dict[str, DocumentQuestion] = {}
    left_out = Counter() if left_out is None else left_out
    for item in chain.from_iterable(map(vary, shuffled)):
        for question in item.questions:
            if limit is not None and len(taken) >= limit:
                return Drawn(tuple(taken.values()), dict(left_out))
            name = digest([item.document, question.text, question.answers])[:12]
            reason = "asked twice" if name in taken else unfit(item.document, question.text)
            if reason:
                left_out[reason] += 1
                continue
            taken[name] = DocumentQuestion(
                name, item.source, item.document, question.text, tuple(question.answers), item.origin
            )
    if not taken:
        raise _nothing(left_out)
    return Drawn(tuple(taken.values()), dict(left_out))


def draw_choices(
    items: Iterable[ChoiceItem],
    limit: int | None,
    seed: int,
    unfit: Callable[[ChoiceItem], str | None] = lambda item: None,
) -> tuple[list[ChoiceItem], dict[str, int]]:
    """Questions with choices, and what came up and was left out by its reason; arguments and error as in `draw`."""
    shuffled = list(items)
    if limit is not None and limit < len(shuffled):
        random.Random(seed).shuffle(shuffled)
    taken: list[ChoiceItem] = []
    left_out: Counter[str] = Counter()
    for item in shuffled:
        if limit is not None and len(taken) >= limit:
            break
        if reason := unfit(item):
            left_out[reason] += 1
        else:
            taken.append(item)
    if not taken:
        raise _nothing(left_out)
    return taken, dict(left_out)


def _nothing(left_out: Mapping[str, int]) -> ValueError:
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "the data is empty"
    return ValueError(f"no question is left to evaluate: {reasons}")


def by_document(questions: Sequence[DocumentQuestion]) -> dict[str, list[int]]:
    """Document -> indices of its questions."""
    found: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        found.setdefault(question.document, []).append(index)
    return found


def digest(value: object) -> str:
    """64 hex digits of a plain JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
