"""Shared slices of cached prompts, fused in training as the service fuses them: whole batches, every layer at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from fuser.heads.compact import CompactFuse
from fuser.heads.fusing import Fusing
from fuser.heads.translate import split_kv
from fuser.kv.geometry import Geometry
from fuser.lab.train.cache import FeatureCache
from fuser.lab.train.cached import CachedPrompt
from fuser.prompts.shared import SharedPositions, align_tail
from fuser.receiver import Prefilled
from kvwire.segment import SegmentKind


@dataclass(frozen=True, slots=True)
class GivenKv:
    """The slice that a prompt gets. matched: it is of this very text."""

    slice: CachedPrompt
    matched: bool

    def pairs(self, mine: SharedPositions, last: int = 0) -> tuple[Tensor, Tensor]:
        """Positions that are fused, and for each the position of the slice that feeds it, both int64.

        A slice of another text is laid along ours position by position, from its start again where it is shorter;
        template tokens meet from the end as ever.

        Args:
            mine: what is fused of the Receiver's prompt.
            last: of a matched slice, number of the Sharer's trailing positions; 0 is all.
        """
        named, device = pad(self.slice.spans, (1, 0)), mine.at.device  # of section 0, the only one
        every = torch.arange(self.slice.count, device=device)
        theirs = SharedPositions(every, named, self.slice.tail).sent()
        if not self.matched:
            wrapped = torch.arange(len(mine.spans), device=device) % max(1, len(named))
            return mine.at, torch.cat((wrapped, align_tail(mine.tail, theirs.tail, len(named), device)))
        theirs = theirs.last(last)
        at, source = mine.fed(theirs.spans, theirs.tail, last > 0)
        return at, theirs.at[source]


class CachedSlices:
    """Slices as a fuse head gets them, keys re-based."""

    def __init__(self, head: CompactFuse, cache: FeatureCache, sharer: Geometry) -> None:
        self._head, self._cache, self._sharer = head, cache, sharer

    def fuse(self, prefilled: Prefilled, given: Sequence[GivenKv], last: int = 0) -> None:
        """Fuse a slice into each row of prefilled prompts, differentiable in the head.

        last: number of trailing positions of each slice; 0 is all.
        """
        layers = [layer for layer in self._head.fed if any(self._head.live(layer))]
        if layers:
            fusing = self.fusing(prefilled, given, last)
            keys, values = self.feeding(fusing, given, layers)
            fusing.merge(layers, {SegmentKind.KEY: keys, SegmentKind.VALUE: values})

    def fusing(self, prefilled: Prefilled, given: Sequence[GivenKv], last: int = 0) -> Fusing:
        prompts = zip(prefilled.prompts, given, strict=True)
        return prefilled.fusing([one.pairs(prompt.shared, last) for prompt, one in prompts])

    def feeding(
        self, fusing: Fusing, given: Sequence[GivenKv], layers: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """K and V of the Sharer that feed some Receiver layers; anything where nothing feeds one."""
        every = [torch.arange(one.slice.count, device=one.slice.spans.device) for one in given]
        slices = [self._cache.raw(one.slice, at) for one, at in zip(given, every, strict=True)]
        keys, values = split_kv(fusing.fed(slices), self._sharer)
        sources = [self._head.layer_map[layer] or 0 for layer in layers]
        return keys[sources], values[sources]
