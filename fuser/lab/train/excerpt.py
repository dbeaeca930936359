"""Excerpts of cached documents, chosen as the service chooses them, and the drafts of their questions."""

from __future__ import annotations

from collections.abc import Sequence

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
