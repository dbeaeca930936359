"""Excerpts of cached documents, chosen as the service chooses them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fuser.scorer import Scorer
from fuser.select import SelectionConfig, choose
from fuser.train.cache import FeatureCache
from fuser.train.cached import Asked, Cached
from fuser.train.regress import of_layers
from fuser.translate import TranslateHead

Example = tuple[Cached, Asked]
"""A question and the document it is about."""


def examples_of(documents: Sequence[Cached], shortest: int) -> list[Example]:
    """Every question over a document of at least so many positions."""
    return [(d, q) for d in documents if d.count >= shortest for q in d.questions]


class Excerpts:
    """Which positions of cached documents are excerpts, and what the Sharer read there.

    Args:
        translate: says which features are read.
        scorer: of the bundle, where the selection is learnt.

    Raises:
        ValueError: a learnt selection without a scorer, or a scorer without one.
    """

    def __init__(
        self,
        cache: FeatureCache,
        selection: SelectionConfig,
        translate: TranslateHead,
        scorer: Scorer | None = None,
    ) -> None:
        if (selection.rule == "learnt") != (scorer is not None):
            raise ValueError(f'selection.rule is "{selection.rule}": a scorer belongs to "learnt" alone')
        self._cache = cache
        self._selection = selection
        self._scorer = scorer
        self._translate = translate

    def chosen(self, document: Cached, question: Asked, most: int | None = None) -> Tensor:
        """The excerpt's positions within the document, ascending int64; `most` lowers the selection's number."""
        scores = question.scores
        if self._scorer is not None:
            with torch.no_grad():
                scores = self._scorer(
                    self.standardised(document), scores.to(self._scorer.weight.device)
                ).cpu()
        limit = self._selection.positions if most is None else most
        return choose(scores, torch.arange(document.count), self._selection, limit)

    def standardised(self, document: Cached) -> Tensor:
        """What a scorer reads of a document: (positions, features of the translate head) float32, on its device."""
        raw = of_layers(self._cache.raw(document, torch.arange(document.count)), self._translate)
        return self._translate.standardise(raw.to(self._translate.input_mean.device))

    def features(self, examples: Sequence[Example], most: int | None = None) -> Tensor:
        """Features of excerpts, of the layers read, as the Sharer gave them: (batch, positions, numbers)."""
        rows = [self._cache.raw(d, self.chosen(d, q, most)) for d, q in examples]
        return of_layers(torch.stack(rows), self._translate)
