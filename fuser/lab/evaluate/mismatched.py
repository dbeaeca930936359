"""Whose slice a question gets in the mismatched row: that of the most alike question over another document.

A slice of just any other question would be an easy control: a Fuser that passes on no more than "a year is asked for"
would beat it. So likeness counts the words that two questions share (cosine of their inverse document frequencies),
plus a half where they ask with the same word, plus a half where their first right answers look alike (a number, a
name, other). What the answers say plays no part: a stranger may happen to share one. A document that holds the one that
the question was written for is no other, and strangers of the same source come first (`fuser.lab.data.cases`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from fuser.lab.evaluate.questions import DocumentQuestion

_ASKING = [
    "how many",
    "how much",
    "how long",
    "who",
    "whose",
    "whom",
    "when",
    "where",
    "which",
    "why",
    "what",
    "how",
]
_ROWS = 256  # questions compared with all others at once


def mismatched(questions: Sequence[DocumentQuestion]) -> list[int]:
    """For each question the index of its stranger.

    Raises:
        ValueError: all questions are over one document, so none has a stranger.
    """
    own, documents = (
        _codes(texts) for texts in ([q.own for q in questions], [q.document for q in questions])
    )
    holds = _holding(questions)
    sources = _codes([q.source for q in questions])
    asking = _codes([_asking(q.question) for q in questions])
    answers = _codes([_kind(q.answers[0]) for q in questions])
    words = _words([q.question for q in questions])
    order = torch.arange(len(questions), device="cpu")
    found: list[int] = []
    for start in range(0, len(questions), _ROWS):
        rows = slice(start, start + _ROWS)
        alike = (words @ words.index_select(0, order[rows]).to_dense().T).T
        alike = alike + 0.5 * (asking[rows, None] == asking) + 0.5 * (answers[rows, None] == answers)
        alike = alike + 2.0 * (sources[rows, None] == sources)
        best = alike.masked_fill(holds[own[rows]][:, documents], -1.0).max(1)
        if bool((best.values < 0).any()):
            raise ValueError("mismatching needs questions over at least two documents; raise the limit")
        found += best.indices.tolist()
    return found


def _holding(questions: Sequence[DocumentQuestion]) -> Tensor:
    """Which documents hold which questions' own, (own documents, documents) bool, both numbered as by `_codes`."""
    own, documents = dict.fromkeys(q.own for q in questions), dict.fromkeys(q.document for q in questions)
    if not any(q.origin for q in questions):
        return torch.eye(len(documents), dtype=torch.bool, device="cpu")
    return torch.tensor([[one in document for document in documents] for one in own], device="cpu")


def _codes(values: Sequence[str]) -> Tensor:
    """Equal texts, equal numbers from 0: (texts,) int64."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(value, len(numbers)) for value in values], device="cpu")


def _asking(question: str) -> str:
    """The word that asks: the first of the known ones that occurs, longer ones before those they hold."""
    spaced = f" {' '.join(re.findall(r'[a-z]+', question.lower()))} "
    places = [(spaced.find(f" {word} "), rank, word) for rank, word in enumerate(_ASKING)]
    return min(((at, rank, word) for at, rank, word in places if at >= 0), default=(0, 0, ""))[2]


def _kind(answer: str) -> str:
    if any(character.isdigit() for character in answer):
        return "number"
    return "name" if answer[:1].isupper() else "other"


def _words(texts: Sequence[str]) -> Tensor:
    """Unit rows of inverse document frequencies, (texts, words) sparse float32."""
    bags = [Counter(re.findall(r"\w+", text.lower())) for text in texts]
    seen = Counter(word for bag in bags for word in bag)
    columns = {word: column for column, word in enumerate(seen)}
    where: list[tuple[int, int]] = []
    values: list[float] = []
    for row, bag in enumerate(bags):
        weights = {word: count * math.log(1 + len(texts) / seen[word]) for word, count in bag.items()}
        norm = math.sqrt(sum(weight**2 for weight in weights.values())) or 1.0
        where += [(row, columns[word]) for word in weights]
        values += [weight / norm for weight in weights.values()]
    at = torch.tensor(where, dtype=torch.int64, device="cpu").reshape(-1, 2).T
    shape = (len(texts), max(1, len(columns)))
    return torch.sparse_coo_tensor(
        at, torch.tensor(values, device="cpu"), shape, check_invariants=True
    ).coalesce()
