"""Taking slices in: shared ones are fused with what the Receiver has read, one layer as it comes or all at once, those
of codes become positions of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fuser.heads.compact import CompactFuse
from fuser.heads.fuse import KEYS, VALUES, FuseHead
from fuser.kv.past import Past
from fuser.kv.rope import Rope
from fuser.slice_specs import HALVES, source_of
from kvwire.segment import Segment, SegmentKind, SegmentSpec

T = TypeVar("T")

_HALF = {
    SegmentKind.KEY: KEYS,
    SegmentKind.VALUE: VALUES,
    SegmentKind.KEY_CODE: KEYS,
    SegmentKind.VALUE_CODE: VALUES,
}


class Fusing:
    """Which positions of a batch are fused, and what feeds them.

    Args:
        rope: of the Receiver.
        past: of the Receiver; its tensors are changed in place, differentiably in what is fused.
        pairs: for each row its positions that are fused, and for each of them the position of the row's slice that
            feeds it, both int64.
    """

    def __init__(
        self, head: FuseHead, rope: Rope, past: Past, pairs: Sequence[tuple[Tensor, Tensor]]
    ) -> None:
        self._head, self._rope, self._past = head, rope, past
        device = past.pads.device
        self._sources = [source.to(device) for _, source in pairs]
        # Rows that have fewer fuse their first position again, and what comes of it is dropped.
        self._at = pad_sequence([at for at, _ in pairs], batch_first=True).to(device)
        counts = torch.tensor([len(at) for at, _ in pairs], device=device)
        self.fused = torch.arange(self._at.shape[1], device=device) < counts[:, None]
        self._slots = self._at + past.pads[:, None]
        self._rows, self._columns = self.fused.nonzero(as_tuple=True)

    def fed(self, rows: Sequence[Tensor]) -> Tensor:
        """Of a tensor (..., positions of its slice, channels) a row what feeds ours: (batch, ..., most, channels)."""
        device = self._at.device
        found = [
            row.to(device)[..., source, :].movedim(-2, 0)
            for row, source in zip(rows, self._sources, strict=True)
        ]
        return pad_sequence(found, batch_first=True).movedim(1, -2)

    def own(self, layers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The Receiver's K, as the head reads them, and V there: each (layers, batch, kv_heads, most, head_dim)."""
        found = [self._past.cache.layers[layer] for layer in layers]
        rows = torch.arange(len(self._slots), device=self._slots.device)[:, None]
        keys = torch.stack([x.keys[rows, :, self._slots].transpose(1, 2) for x in found])
        values = torch.stack([x.values[rows, :, self._slots].transpose(1, 2) for x in found])
        return keys if self._head.rotated_keys else self._rope.unrotate_all(keys, self._at, layers), values

    def merge(self, layers: Sequence[int], theirs: Mapping[SegmentKind, Tensor]) -> None:
        """Merge into some layers what the Sharer says for them.

        Args:
            theirs: by kind, as `fed` gives it and stacked over the layers: K and V (layers, batch, kv_heads, most,
                head_dim) of the Sharer's layers that feed these, or source halves (layers, batch, most, rank). A half
                of which nothing is given, or whose gate is closed, stays what it is.

        Raises:
            ValueError: a shape that does not fit the pair.
        """
        head, own = self._head, self.own(layers)
        if any(kind.is_code for kind in theirs):
            merged = self._from_halves(layers, theirs, own)
        else:
            merged = head.fuse(layers, theirs.get(SegmentKind.KEY), theirs.get(SegmentKind.VALUE), *own)
        given = {_HALF[kind] for kind in theirs}
        live = [[half in given and gate for half, gate in enumerate(head.live(layer))] for layer in layers]
        keys, values = merged
        if not head.rotated_keys and any(key for key, _ in live):
            keys = self._rope.rotate_all(keys, self._at, layers)
        slots = self._slots[self._rows, self._columns]
        for place, layer in enumerate(layers):
            mine = self._past.cache.layers[layer]
            halves = zip(live[place], (keys, values), (mine.keys, mine.values), strict=True)
            for changed, new, target in halves:
                if changed:  # keys that nothing changed are not turned again: that would round them
                    target[self._rows, :, slots] = new[place][self._rows, :, self._columns].to(target.dtype)

    def _from_halves(
        self, layers: Sequence[int], theirs: Mapping[SegmentKind, Tensor], own: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        head, merged = self._head, list(own)
        assert isinstance(head, CompactFuse)  # no other has segments of such kinds
        for kind, halves in theirs.items():
            half = HALVES[kind].start
            merged[half] = torch.stack(
                [
                    head.fuse_from_half(layer, HALVES[kind], halves[None, place], own[half][None, place])[0]
                    for place, layer in enumerate(layers)
                ]
            )
        return merged[KEYS], merged[VALUES]


class Intake(Generic[T]):
    """A slice that is being taken in: `add` every segment that was announced, then go on with `done`.

    Args:
        prompt: what it is put into. specs: the segments that were announced.
    """

    def __init__(self, prompt: T, specs: Sequence[SegmentSpec]) -> None:
        self._prompt = prompt
        self._due = {spec.segment_id for spec in specs}

    def add(self, segment: Segment) -> None:
        """Take one decoded segment in; what has all it needs is merged at once.

        Raises:
            ValueError: the segment was not announced, or came before; or its shape does not fit the pair.
        """
        if segment.spec.segment_id not in self._due:
            raise ValueError(f"segment {segment.spec.segment_id} is not due")
        self._due.remove(segment.spec.segment_id)
        with torch.no_grad():
            self._take(segment)

    def done(self) -> T:
        """The prompt with the whole slice.

        Raises:
            ValueError: segments are still to come.
        """
        if self._due:
            raise ValueError(f"{len(self._due)} segments of the slice are still to come")
        return self._prompt

    def _take(self, segment: Segment) -> None:
        raise NotImplementedError


class CodeIntake(Intake[T]):
    """An excerpt or a draft: codes that become extra positions, which `put` gets as (1, positions, values)."""

    def __init__(self, prompt: T, specs: Sequence[SegmentSpec], put: Callable[[Tensor], None]) -> None:
        super().__init__(prompt, specs)
        self._put = put

    def _take(self, segment: Segment) -> None:
        self._put(segment.tensor[None])


class SharedIntake(Intake[T]):
    """A shared slice: a layer is fused once all has come that it reads."""

    def __init__(self, prompt: T, specs: Sequence[SegmentSpec], head: FuseHead, fusing: Fusing) -> None:
        super().__init__(prompt, specs)
        self._head, self._fusing = head, fusing
        self._waiting = self._awaited({(spec.kind, spec.layer) for spec in specs})
        self._arrived: dict[tuple[SegmentKind, int], Tensor] = {}

    def _take(self, segment: Segment) -> None:
        self._arrived[segment.spec.kind, segment.spec.layer] = segment.tensor
        for layer, segments in list(self._waiting.items()):
            if all(awaited in self._arrived for awaited in segments):
                del self._waiting[layer]
                theirs = {at[0]: self._fusing.fed([self._arrived[at]])[None] for at in segments}
                self._fusing.merge([layer], theirs)

    def _awaited(self, announced: set[tuple[SegmentKind, int]]) -> dict[int, list[tuple[SegmentKind, int]]]:
        """For each Receiver layer that is to be fused, the announced segments that it reads."""
        awaited: dict[int, list[tuple[SegmentKind, int]]] = {}
        for layer, reads in enumerate(self._head.open_layers()):
            if any(reads):
                source = source_of(self._head, layer)
                kinds = (SegmentKind.KEY, SegmentKind.VALUE)
                wanted = [(kind, source) for kind, read in zip(kinds, reads, strict=True) if read]
                wanted += [(kind, layer) for kind in HALVES]
                awaited[layer] = [segment for segment in wanted if segment in announced]
        return {layer: segments for layer, segments in awaited.items() if segments}
