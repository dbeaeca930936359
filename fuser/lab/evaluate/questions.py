"""The questions of one evaluation: drawn by a seed up to a limit, and what was left out counted by its reason."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Literal, TypeVar

from fuser.lab.data.document import Item
from fuser.lab.data.load import GENERATED, load
from fuser.lab.data.records.exchange import exchanged
from fuser.prompts.choice import ChoiceItem
from fuser.prompts.prompt import tokenise

Asked = TypeVar("Asked", "DocumentQuestion", ChoiceItem)
_LENGTHS = {
    "1 token": (1, 1),
    "2-3 tokens": (2, 3),
    "4-5 tokens": (4, 5),
    "more than 5 tokens": (6, 1 << 30),
    "at most 5 tokens": (1, 5),
}


@dataclass(frozen=True, slots=True)
class DocumentQuestion:
    """A question over a cloud document.

    id: a hash of the document, the question and its answers. origin: as in `Item`. other, parts: as in `Question`.
    """

    id: str
    source: str
    document: str
    question: str
    answers: tuple[str, ...]
    origin: str = ""
    other: str = ""
    parts: tuple[str, ...] = ()

    @property
    def rebound(self) -> DocumentQuestion:
        """The same question over its document with the other value in the answer's place, which is right then."""
        document = exchanged(self.document, self.answers[0], self.other)
        return replace(self, document=document, answers=(self.other,))

    @property
    def own(self) -> str:
        return self.origin or self.document


def read_questions(
    source: str, task: Literal["auto", "choice", "document"], limit: int | None, seed: int, **options: Any
) -> tuple[list[ChoiceItem], list[Item]]:
    """All of a source, questions with choices or over documents; one of both is empty.

    Args:
        limit: of generated records, which are made as they are asked for. options: of `fuser.lab.data.load.load`.

    Raises:
        ValueError: bad data (file, line and field are named), or data that asks neither.
    """
    items = load(source, task, limit if source.startswith(GENERATED) else None, seed, **options)
    choices = [item for item in items if isinstance(item, ChoiceItem)]
    documents = [item for item in items if isinstance(item, Item)]
    if not choices and not documents:
        raise ValueError(f"{source} holds instructions: nothing there can be marked right or wrong")
    return choices, documents


def draw(
    items: Iterable[Item],
    limit: int | None,
    seed: int,
    unfit: Callable[[DocumentQuestion], str | None] = lambda asked: None,
    vary: Callable[[Item], Iterable[Item]] = lambda item: (item,),
    left_out: Counter[str] | None = None,
) -> list[DocumentQuestion]:
    """Shuffle the documents, then take their questions until there are enough.

    Args:
        limit: questions at most; None takes all.
        unfit: for a question the reason to leave it out, or None.
        vary: what is asked in an item's place, such as `fuser.lab.data.cases.Cases`.
        left_out: reason -> questions that came up and were not taken; counted here, `vary` may count in it too.

    Raises:
        ValueError: no question is left.
    """
    shuffled = list(items)
    random.Random(seed).shuffle(shuffled)
    found = (
        DocumentQuestion(
            digest([item.document, question.text, question.answers])[:12],
            item.source,
            item.document,
            question.text,
            tuple(question.answers),
            item.origin,
            question.other,
            question.parts,
        )
        for item in chain.from_iterable(map(vary, shuffled))
        for question in item.questions
    )
    return _taken(found, limit, unfit, left_out)


def draw_choices(
    items: Iterable[ChoiceItem],
    limit: int | None,
    seed: int,
    unfit: Callable[[ChoiceItem], str | None] = lambda item: None,
    left_out: Counter[str] | None = None,
) -> list[ChoiceItem]:
    """The same of questions with choices."""
    shuffled = list(items)
    if limit is not None and limit < len(shuffled):
        random.Random(seed).shuffle(shuffled)
    return _taken(shuffled, limit, unfit, left_out)


def _taken(
    found: Iterable[Asked],
    limit: int | None,
    unfit: Callable[[Asked], str | None],
    left_out: Counter[str] | None,
) -> list[Asked]:
    left_out = Counter() if left_out is None else left_out
    taken: dict[str, Asked] = {}
    for asked in found:
        if limit is not None and len(taken) >= limit:
            break
        if reason := "asked twice" if asked.id in taken else unfit(asked):
            left_out[reason] += 1
        else:
            taken[asked.id] = asked
    if not taken:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "the data is empty"
        raise ValueError(f"no question is left to evaluate: {reasons}")
    return list(taken.values())


def questions_digest(questions: Sequence[DocumentQuestion | ChoiceItem]) -> str:
    """64 hex digits: SHA-256 of questions with all that they hold, in order."""
    return digest([asdict(question) for question in questions])


def digest(value: object) -> str:
    """64 hex digits of a plain JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def parts(questions: Sequence[DocumentQuestion], tokenizer: Any) -> dict[str, frozenset[str]]:
    """Name of a part -> ids of its questions; parts that are empty, or all of the questions, are left out.

    An answer is as long as the Receiver's `tokenizer` makes the shortest of the right ones. Where the document states
    the value that an answer can be exchanged for, another name has the answer then; else no name has.
    """
    lengths = {
        q.id: min(len(tokenise(tokenizer, f" {answer}").ids) for answer in q.answers) for q in questions
    }
    found = {
        f"answers of {name}": frozenset(i for i, length in lengths.items() if low <= length <= high)
        for name, (low, high) in _LENGTHS.items()
    }
    for source in dict.fromkeys(q.source for q in questions):
        found[source] = frozenset(q.id for q in questions if q.source == source)
    for name, stated in (("another such value stated", True), ("no other such value stated", False)):
        found[name] = frozenset(q.id for q in questions if q.other and (q.other in q.document) is stated)
    return {name: ids for name, ids in found.items() if 0 < len(ids) < len(questions)}
