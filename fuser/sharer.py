"""The Sharer: prefill a prompt and cut the slice that travels.

`plan` renders and tokenises, so the header is known before any layer is computed; `steps` says what to prefill and
hands out segments: a shared slice layer after layer while the next one computes, an excerpt at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from fuser.bundle import Bundle
from fuser.cut import Cut, Spans, cut_excerpt, cut_shared
from fuser.generate import greedy
from fuser.geometry import Geometry
from fuser.prefill import Prefill, adopt, prefill_together
from fuser.prefixes import KV, PrefixCache
from fuser.prompt import SHARER_HOLDS, Tokens, render, tokenise
from fuser.rope import Rope
from fuser.select import choose
from fuser.slice_specs import HALVES, source_of, split_head
from fuser.translate import features_of
from kvwire.errors import Unsupported
from kvwire.plan import WHOLE, Plan
from kvwire.section import Section
from kvwire.segment import SegmentKind, SegmentSpec, SliceKind

__all__ = ["Cut", "Emit", "Sharer", "Steps"]

T = TypeVar("T")

Emit = Callable[[SegmentSpec, Tensor], None]
Steps = Generator[Prefill, None, T]
"""Prefills to be run one after another, each before the next is asked for; then a result."""


class Sharer:
    """A Sharer model with the bundle that says what to cut. The steps of several calls may take turns on one thread.

    The bundle's heads are moved to the model's device; what is emitted is on the CPU.

    Args:
        prefixes: of this model, where documents that were read before are found; it may serve other bundles too. A
            slice has the same bits with it and without.
    """

    def __init__(
        self, model: Any, tokenizer: Any, bundle: Bundle, prefixes: PrefixCache | None = None
    ) -> None:
        geometry = Geometry.of(model.config)
        if geometry != bundle.config.sharer_geometry:
            raise Unsupported(
                f"bundle wants a Sharer of {bundle.config.sharer_geometry}, this model is {geometry}"
            )
        adopt(model)
        self.model = model
        self.tokenizer = tokenizer
        self.bundle = bundle.to(model.device)
        self.geometry = geometry
        self._rope = Rope(model)
        self._prefixes = prefixes or PrefixCache(0)

    def plan(
        self, sections: Sequence[Section], kind: SliceKind, max_positions: int, plan: Plan = WHOLE
    ) -> Cut:
        """Render and tokenise a prompt and say what will be cut.

        Args:
            sections: every section with its text; documents already resolved.
            max_positions: excerpt positions allowed; the plan may want fewer.
            plan: what of the slice to cut; its codec and padding are not ours.

        Raises:
            Unsupported: the bundle cannot make this kind of slice, or not by this plan.
            InvalidRequest: the sections or the plan do not fit the kind, or the plan asks for what there is not.
        """
        tokens, spans = self._prompt(sections)
        if kind is SliceKind.SHARED:
            return cut_shared(sections, tokens, spans, self.bundle, plan, self._dtype)
        return cut_excerpt(sections, tokens, spans, self.bundle, plan, max_positions)

    def run(
        self, cut: Cut, emit: Emit, cancelled: Callable[[], bool] = lambda: False, owner: str = ""
    ) -> None:
        """Take all `steps`, and prefill what they say.

        Raises:
            Cancelled: `cancelled()` became true.
        """
        for work in self.steps(cut, emit, cancelled, owner):
            prefill_together(self.model, [work])
            if work.failure is not None:
                raise work.failure

    def steps(
        self, cut: Cut, emit: Emit, cancelled: Callable[[], bool] = lambda: False, owner: str = ""
    ) -> Steps[None]:
        """What is to be prefilled for a cut; emits every segment of it, in the order of `cut.specs`.

        Args:
            emit: called while a prefill runs, or between two; the tensor is on the CPU and its own to keep.
            cancelled: polled before each layer.
            owner: whose documents these are; what was read for one owner is not reused for another.
        """
        if not cut.specs:
            return
        call = _Call(cut, cancelled, owner)
        if cut.kind is SliceKind.SHARED:
            yield from self._shared(call, emit)
        else:
            emit(cut.specs[0], (yield from self._excerpt(call)).cpu())

    def positions(self, sections: Sequence[Section]) -> int:
        """How many positions the prompt of these sections has."""
        return len(self._prompt(sections)[0].ids)

    def answer(
        self, sections: Sequence[Section], max_new_tokens: int, seen: list[int] | None = None
    ) -> Iterator[str]:
        """The Sharer's own answer, in pieces of text (the Relay baseline). `seen` collects the token ids."""
        ids = self._prompt(sections)[0].ids.to(self.model.device)
        return greedy(self.model, self.tokenizer, ids, max_new_tokens=max_new_tokens, seen=seen)

    def _prompt(self, sections: Sequence[Section]) -> tuple[Tokens, Spans]:
        rendered = render(sections, self.bundle.config.sharer_prompt, SHARER_HOLDS)
        return tokenise(self.tokenizer, rendered), rendered.spans

    def _shared(self, call: _Call, emit: Emit) -> Steps[None]:
        head, at = self.bundle.require_fuse(), call.cut.exported.to(self.model.device)
        wanted: dict[int, list[SegmentSpec]] = {}
        for spec in call.cut.specs:
            wanted.setdefault(source_of(head, spec.layer) if spec.kind.is_code else spec.layer, []).append(
                spec
            )

        def on_layer(layer: int, keys: Tensor, values: Tensor) -> None:
            if layer not in wanted:
                return
            keys, values = keys[0][:, at], values[0][:, at]
            if not head.rotated_keys:
                keys = self._rope.unrotate(keys, at, layer)
            for spec in wanted[layer]:
                emit(spec, self._part(spec, keys, values).cpu())

        yield from self._prefill(call, max(wanted), on_layer)

    def _part(self, spec: SegmentSpec, keys: Tensor, values: Tensor) -> Tensor:
        """What a segment of a shared slice holds, from K and V (kv_heads, positions, head_dim) of its layer."""
        if spec.kind is SegmentKind.KEY:
            return keys
        if spec.kind is SegmentKind.VALUE:
            return values
        halves = HALVES[spec.kind]
        read = torch.stack((keys, values))[halves.start : halves.stop, None]
        with torch.inference_mode():
            return split_head(self.bundle).source_half(spec.layer, halves, read)[0, 0]

    def _excerpt(self, call: _Call) -> Steps[Tensor]:
        """Codes of the chosen positions, (positions, code_dim) float32."""
        cut, selection = call.cut, self.bundle.config.selection
        head, scorer = self.bundle.require_translate(), self.bundle.scorer
        kept = _Kept(cut.exported.to(self.model.device), head.layers)
        scores = yield from self._prefill(call, self.geometry.layers - 1, kept.take, choosing=True)
        assert scores is not None
        with torch.inference_mode():
            if scorer is not None:
                scores = scorer(scores)
            chosen = choose(scores[0].cpu(), cut.exported, selection, cut.positions)
            among = torch.searchsorted(cut.exported, chosen)
            codes = head.encode(kept.features(self._rope, among.to(self.model.device)))
            return codes[:, : cut.specs[0].shape[1]]

    def _prefill(
        self,
        call: _Call,
        last_layer: int,
        on_layer: Callable[[int, Tensor, Tensor], None],
        choosing: bool = False,
    ) -> Steps[Tensor | None]:
        """Prefill the prefix, unless it was before, and then the rest on top of it; `on_layer` gets both together.

        In two parts even where nothing is reused: how a prompt is parted changes the last bits.
        """
        ids, prefix = call.cut.tokens.ids.to(self.model.device), call.cut.prefix
        past = (yield from self._past(ids[:prefix], last_layer, call)) if prefix else []

        def joined(layer: int, keys: Tensor, values: Tensor) -> None:
            if past:
                before = past[layer]
                keys, values = torch.cat((before[0], keys), dim=2), torch.cat((before[1], values), dim=2)
            on_layer(layer, keys, values)

        work = Prefill(
            ids[None, prefix:],
            last_layer,
            joined,
            call.cancelled,
            query_rows=int(choosing),
            first_query_layer=self.bundle.config.selection.first_query_layer(self.geometry.layers),
            per_head=self.bundle.scorer is not None,
            past=past,
        )
        yield work
        return work.scores

    def _past(self, ids: Tensor, last_layer: int, call: _Call) -> Steps[KV]:
        found = self._prefixes.get(call.owner, ids, last_layer + 1)
        if found is None:
            read: KV = []

            def on_layer(_: int, keys: Tensor, values: Tensor) -> None:
                read.append(
                    (keys.contiguous(), values.contiguous())
                )  # not a view of what others read beside it

            yield Prefill(ids[None], last_layer, on_layer, call.cancelled)
            self._prefixes.put(call.owner, ids, read)
            return read
        return found

    @property
    def _dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")


@dataclass(frozen=True, slots=True)
class _Call:
    """What one `run` was given."""

    cut: Cut
    cancelled: Callable[[], bool]
    owner: str


class _Kept:
    """K and V at some positions of some layers, kept while a prefill hands them out."""

    def __init__(self, at: Tensor, layers: Sequence[int]) -> None:
        self.at = at
        self._layers = set(layers)
        self._found: list[tuple[int, Tensor, Tensor]] = []

    def take(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """As `prefill` hands them out."""
        if layer in self._layers:
            self._found.append((layer, keys[0][:, self.at], values[0][:, self.at]))

    def features(self, rope: Rope, picked: Tensor) -> Tensor:
        """Features (positions, sharer numbers) of the kept positions at these indices."""
        at = self.at[picked]
        bare = torch.stack([rope.unrotate(keys[:, picked], at, layer) for layer, keys, _ in self._found])
        return features_of(bare, torch.stack([values[:, picked] for *_, values in self._found]))
