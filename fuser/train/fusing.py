"""Fusing in training: batches of shared prompts, padded, with every mapped layer at once; the service's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from fuser.alignment import align_tail
from fuser.fuse import FuseHead
from fuser.geometry import Geometry
from fuser.rope import Rope
from fuser.shared import SharedPositions
from fuser.train.cache import FeatureCache
from fuser.train.cached import CachedPrompt
from fuser.train.noise import quantisation_noise
from fuser.train.reading import Reading
from fuser.translate import features_of, split_kv


@dataclass(frozen=True, slots=True)
class Side:
    """One prompt on the Receiver's side, and the slice it gets.

    ids: (positions,) int64 of the whole prompt; its last token is run on top of the fused cache. shared: what is fused
    of it. slice: whose Sharer features; `matched` where they are of this very text.
    """

    ids: Tensor
    shared: SharedPositions
    slice: CachedPrompt
    matched: bool

    def pairs(self, last: int = 0) -> tuple[Tensor, Tensor]:
        """Positions that are fused, and for each the position of the slice that feeds it, both int64.

        A slice of another text is laid along ours position by position, from its start again where it is shorter;
        template tokens meet from the end as ever.

        Args:
            last: of a matched slice, so many of the Sharer's last positions; 0 is all.
        """
        mine, named = self.shared, pad(self.slice.spans, (1, 0))  # of section 0, the only one
        theirs = SharedPositions(torch.arange(self.slice.count), named, self.slice.tail).sent()
        if not self.matched:
            wrapped = torch.arange(len(mine.spans)) % max(1, len(named))
            return mine.at, torch.cat((wrapped, align_tail(mine.tail, theirs.tail, len(named))))
        theirs = theirs.last(last)
        at, source = mine.fed(theirs.spans, theirs.tail, last > 0)
        return at, theirs.at[source]


@dataclass(frozen=True, slots=True)
class Pair:
    """Both sides of a batch, aligned: K and V, each (receiver layers, batch, kv_heads, positions, head_dim).

    own_keys are as the head reads them. fused: (batch, positions) bool, where there is something to fuse.
    """

    sharer_keys: Tensor
    sharer_values: Tensor
    own_keys: Tensor
    own_values: Tensor
    fused: Tensor


class Fusing:
    """The Receiver's own KV of a batch of prompts, and the same with slices fused in.

    Args:
        sharer_rope: of the Sharer; needed where the head reads rotated keys.
        noise_bits: of the codec whose noise slices get while the head is in training mode; 0 is none.
    """

    def __init__(
        self,
        head: FuseHead,
        reading: Reading,
        cache: FeatureCache,
        sharer: Geometry,
        sharer_rope: Rope | None,
        noise_bits: int = 0,
    ) -> None:
        if head.rotated_keys and sharer_rope is None:
            raise ValueError("a fuse head of rotated keys needs the Sharer's rotary embedding")
        self._head = head
        self._reading = reading
        self._cache = cache
        self._sharer = sharer
        self._rope = sharer_rope
        self._noise_bits = noise_bits
        self._sources = torch.tensor([source or 0 for source in head.layer_map.sources])

    def own(self, sides: Sequence[Side]) -> tuple[Tensor, Tensor]:
        """The Receiver's K (rotated) and V of all prompt positions but the last; right-padded, no gradient."""
        return self._reading.prefill(pad_sequence([side.ids[:-1] for side in sides], batch_first=True))

    def fused(self, sides: Sequence[Side], last: int = 0) -> tuple[Tensor, Tensor]:
        """The same with the slices fused in, differentiable in the head: (layers, batch, kv_heads, positions, dim).

        last: so many of the last positions of each slice; 0 is all.
        """
        keys, values = self.own(sides)
        pair = self.pair(sides, keys, values, last)
        fused_keys, fused_values = self._head.fuse(
            range(len(keys)), pair.sharer_keys, pair.sharer_values, pair.own_keys, pair.own_values
        )
        if not self._head.rotated_keys:
            fused_keys = self._reading.rope.rotate_all(fused_keys, self._columns(keys))
        where = pair.fused[None, :, None, :, None]
        return torch.where(where, fused_keys, keys), torch.where(where, fused_values, values)

    def pair(self, sides: Sequence[Side], keys: Tensor, values: Tensor, last: int = 0) -> Pair:
        """Align the slices, or so many of their last positions, with the Receiver's own K (rotated) and V of `own`."""
        shape = (len(sides), keys.shape[3])
        index, fused = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
        for row, side in enumerate(sides):
            at, source = side.pairs(last)
            index[row, at] = source
            fused[row, at] = True
        theirs = pad_sequence([self._slice(side.slice) for side in sides], batch_first=True)
        gathered = theirs[torch.arange(len(sides))[:, None], index].to(keys.device)
        sharer_keys, sharer_values = split_kv(gathered, self._sharer)
        sources = self._sources.to(keys.device)
        bare = keys
        if not self._head.rotated_keys:
            bare = self._reading.rope.unrotate_all(keys, self._columns(keys))
        return Pair(sharer_keys[sources], sharer_values[sources], bare, values, fused.to(keys.device))

    def _slice(self, prompt: CachedPrompt) -> Tensor:
        """Features (positions, sharer numbers) float32 as the head gets them: rotated if it reads so, with noise."""
        at = torch.arange(prompt.count)
        keys, values = split_kv(self._cache.raw(prompt, at), self._sharer)
        if self._head.rotated_keys:
            assert self._rope is not None  # refused at the start
            keys = self._rope.rotate_all(keys, prompt.first + at)
        if self._head.training:
            keys = quantisation_noise(keys, self._noise_bits, -2)
            values = quantisation_noise(values, self._noise_bits, -1)
        return features_of(keys, values)

    def _columns(self, keys: Tensor) -> Tensor:
        return torch.arange(keys.shape[3], device=keys.device)
