"""Excerpts of cached documents, chosen as the service chooses them, the drafts of their questions, and windows: what a
Receiver that reads a slice well can say word for word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fuser.heads.selection import SelectionConfig, choose
from fuser.heads.translate import TranslateHead
from fuser.lab.train.cache import FeatureCache
from fuser.lab.train.cached import Cached, CachedQuestion
from fuser.lab.train.regress import of_layers

Example = tuple[Cached, CachedQuestion]
"""A question and the document it is about."""


def examples_of(documents: Sequence[Cached], shortest: int) -> list[Example]:
    """Every question over a document of at least this many positions."""
    return [(d, q) for d in documents if d.count >= shortest for q in d.questions]


class Excerpts:
    """Which positions of cached documents are excerpts, and what the Sharer read there and in its drafts.

    Args:
        translate: says which features are read.
        runs, fit: as a plan has them.
    """

    def __init__(
        self,
        cache: FeatureCache,
        selection: SelectionConfig,
        translate: TranslateHead,
        runs: int = 0,
        fit: bool = False,
    ) -> None:
        self._runs, self._fit = runs, fit
        self._cache = cache
        self._selection = selection
        self._translate = translate

    def chosen(self, document: Cached, question: CachedQuestion, most: int | None = None) -> Tensor:
        """The excerpt's positions within the document, ascending int64; `most` lowers the selection's number."""
        limit = self._selection.positions if most is None else most
        every = torch.arange(document.count, device=question.scores.device)
        return choose(question.scores, every, self._selection, limit, self._runs, self._fit)

    def features(self, examples: Sequence[Example], most: int | None = None) -> Tensor:
        """Features of excerpts, of the layers read, as the Sharer gave them: (batch, positions, numbers)."""
        return self.at([(d, self.chosen(d, q, most)) for d, q in examples])

    def at(self, places: Sequence[tuple[Cached, Tensor]]) -> Tensor:
        """Features at positions of documents, as many of each, like those of excerpts."""
        return torch.stack([self._of(document, positions) for document, positions in places])

    def of_draft(self, document: Cached, question: CachedQuestion, quoted: int = 0) -> Tensor:
        """Features of a draft slice, (positions, numbers): of as many positions that are quoted, then the draft's."""
        return self._of(document, torch.cat((self.chosen(document, question, quoted), question.drafted)))

    def _of(self, document: Cached, rows: Tensor) -> Tensor:
        return of_layers(self._cache.raw(document, rows), self._translate)


RECITE = "Which words are in the note?"
"""The question that a window's own text answers."""


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive positions of a document, ascending int64, and the text that they hold."""

    positions: Tensor
    text: str


def window_of(document: Cached, positions: int, at: float) -> Window:
    """The window of this many positions that begins at a word, at that share of the document or just before it.

    Its text ends with a whole word (a run of letters and digits), unless the window holds no whole one.

    Args:
        at: in [0, 1].

    Raises:
        ValueError: the document has fewer positions.
    """
    if positions > document.count:
        raise ValueError(f"a window of {positions} positions does not fit a document of {document.count}")
    text = document.text
    begins = document.spans[:, 0].clamp(min=0).tolist()
    first = round(at * (document.count - positions))
    while first and _joined(text, begins[first]):
        first -= 1
    last = int(document.spans[first + positions - 1, 1])
    end = last
    while end > begins[first] and _joined(text, end):
        end -= 1
    held = text[begins[first] : end].strip() or text[begins[first] : last].strip()
    return Window(torch.arange(first, first + positions, device="cpu"), held)


def _joined(text: str, at: int) -> bool:
    """Whether a cut before this character parts a word."""
    return 0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum()
