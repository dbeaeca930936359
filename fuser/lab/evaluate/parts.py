"""The parts of an evaluation: questions by the length of their answers, and by where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.prompts.prompt import tokenise

_LENGTHS = {
    "1 token": (1, 1),
    "2-3 tokens": (2, 3),
    "4-5 tokens": (4, 5),
    "more than 5 tokens": (6, 1 << 30),
    "at most 5 tokens": (1, 5),
}


def parts(questions: Sequence[DocumentQuestion], tokenizer: Any) -> dict[str, frozenset[str]]:
    """Name of a part -> ids of its questions; parts that are empty, or all of the questions, are left out.

    An answer is as long as the Receiver's `tokenizer` makes the shortest of the right ones.
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
    return {name: ids for name, ids in found.items() if 0 < len(ids) < len(questions)}
