"""The Receiver: prefill what it may hold, take a slice in, generate.

A shared slice is fused with the Receiver's own KV layer by layer, as its segments arrive. An excerpt is
expanded to extra positions that stand where the withheld document would, and the question is prefilled on top of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from fuser.bundle import Bundle
from fuser.generate import greedy_ids, pieces, stop_tokens
from fuser.geometry import Geometry, window
from fuser.prefixes import PrefixCache
from fuser.prompt import RECEIVER_HOLDS, render, tokenise
from fuser.rope import Rope
from fuser.shared import shared_positions
from fuser.slice_specs import HALVES, source_of, split_head
from fuser.translate import split_kv
from kvwire.errors import TooLarge, Unsupported
from kvwire.plan import WHOLE, Plan
from kvwire.section import Section, Visibility
from kvwire.segment import Segment, SegmentKind, SliceHeader, SliceKind

_HEADS_BYTES: Final = 32 << 20


class Receiver:
    """A Receiver model with the bundle that says how slices are taken in. One draft generates at a time.

    The bundle's heads are moved to the model's device; segments may come on any.

    Attributes:
        window: positions the model was made for; prompt, prefix, slice and answer have to fit.
        heads: what stands before a slice, learnt prefix included, of prompts that were begun before.
    """

    def __init__(self, model: Any, tokenizer: Any, bundle: Bundle) -> None:
        geometry = Geometry.of(model.config)
        if geometry != bundle.config.receiver_geometry:
            raise Unsupported(
                f"bundle wants a Receiver of {bundle.config.receiver_geometry}, this model is {geometry}"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.bundle = bundle.to(model.device)
        self.geometry = geometry
        self.rope = Rope(model)
        self.stops = stop_tokens(model, tokenizer)
        self.window = window(model.config)
        self.heads = PrefixCache(_HEADS_BYTES)

    def begin(self, sections: Sequence[Section]) -> Draft:
        """Render and tokenise the Receiver's prompt; cloud sections keep their place but give no text.

        Raises:
            TooLarge: the prompt does not fit the Receiver's window.
        """
        return Draft(self, sections)


class Draft:
    """One answer in the making.

    Order of calls: `prefill`, then (for a slice) `receive` and `add` for every segment, then `generate`. `prefill` may
    run in another thread while the slice is on its way, but must return before `add`.
    """

    def __init__(self, receiver: Receiver, sections: Sequence[Section]) -> None:
        self._receiver = receiver
        self._sections = tuple(sections)
        rendered = render(sections, receiver.bundle.config.receiver_prompt, RECEIVER_HOLDS)
        self._spans = rendered.spans
        self._prompt = tokenise(receiver.tokenizer, rendered)
        self._insertion = int((self._prompt.offsets[:, 0] < rendered.insertion).sum())
        self._arrived: dict[tuple[SegmentKind, int], Tensor] = {}
        self._waiting: dict[int, list[tuple[SegmentKind, int]]] = {}
        self._done = 0
        self._check_window(0)
        self.cache = DynamicCache()
        self.tokens: list[int] = []

    def prefill(self, kind: SliceKind | None) -> None:
        """Run the Receiver over what can be run before the slice is there.

        Args:
            kind: SHARED runs all but the prompt's last token. EXCERPT and None (receiver-only) run up to
                where the document stands or would stand, and put the bundle's learnt prefix there, if it has one.

        Raises:
            TooLarge: with the prefix the prompt does not fit the Receiver's window.
        """
        until = len(self._prompt.ids) - 1 if kind is SliceKind.SHARED else self._insertion
        prefix = self._receiver.bundle.prefix_kv(kind)
        self._check_window(0 if prefix is None else len(prefix))
        self._done, heads = until, self._receiver.heads
        # It is the same for every question over a document; notes of the edge are not kept beyond their answer.
        kept = kind is not SliceKind.SHARED and all(
            s.visibility is not Visibility.EDGE for s in self._sections
        )
        ids, owner = self._prompt.ids[:until], str(kind)
        if kept and (known := heads.get(owner, ids, 1)) is not None:
            for layer, (keys, values) in enumerate(known):
                self.cache.update(keys, values, layer)
            return
        with torch.inference_mode():
            if until:
                run = ids[None].to(self._receiver.model.device)
                self._receiver.model.get_decoder()(input_ids=run, past_key_values=self.cache, use_cache=True)
            if prefix is not None and len(prefix):
                self._append(prefix)
        if kept and self.cache.get_seq_length():
            heads.put(owner, ids, [(layer.keys, layer.values) for layer in self.cache.layers])

    def receive(self, header: SliceHeader, plan: Plan = WHOLE) -> None:
        """Take the header, whose spans count this draft's sections: which exported position feeds which of ours.

        Args:
            plan: as it was asked for. Where it leaves out positions, layers or halves, ours stay what they are.

        Raises:
            Unsupported: the bundle has no head for this kind of slice.
            TooLarge: with the slice the prompt does not fit the Receiver's window.
        """
        if header.kind is SliceKind.SHARED:
            self._targets, self._gather = self._alignment(header, plan)
            self._waiting = self._awaited({(spec.kind, spec.layer) for spec in header.specs})
        else:
            self._head = self._receiver.bundle.require_translate()
            taken = header.positions * self._head.receiver_positions
            self._check_window(self.cache.get_seq_length() - self._done + taken)

    def add(self, segment: Segment) -> None:
        """Take one decoded segment in; fuses every layer that has all it needs."""
        tensor = segment.tensor.to(self._receiver.model.device)
        with torch.inference_mode():
            if segment.spec.kind is SegmentKind.CODE:
                missing = self._head.config.code_dim - tensor.shape[1]
                self._append(
                    self._head.expand(functional.pad(tensor, (0, missing)))
                )  # codes are 0 on average
            else:
                self._arrived[segment.spec.kind, segment.spec.layer] = tensor
                self._fuse_ready()

    def generate(self, max_new_tokens: int) -> Iterator[str]:
        """Yield text pieces, up to the end of the Receiver's window; token ids collect in `tokens`."""
        receiver = self._receiver
        rest = self._prompt.ids[self._done :].to(receiver.model.device)
        room = receiver.window - self.cache.get_seq_length() - len(rest)
        stream = greedy_ids(receiver.model, rest, self.cache, receiver.stops, min(max_new_tokens, room))
        return pieces(receiver.tokenizer, stream, self.tokens)

    def _check_window(self, positions: int) -> None:
        """Refuse a prompt that leaves no room for an answer beside so many further positions."""
        needed = positions + len(self._prompt.ids) + 1
        if needed > self._receiver.window:
            raise TooLarge("Receiver prompt positions", needed, self._receiver.window)

    def _append(self, flat: Tensor) -> None:
        """Put Receiver KV (positions, receiver width), keys re-based, behind what the cache holds."""
        receiver = self._receiver
        keys, values = split_kv(flat, receiver.geometry)
        start = self.cache.get_seq_length()
        at = torch.arange(start, start + len(flat), device=keys.device)
        keys = receiver.rope.rotate_all(keys, at).to(receiver.model.dtype)
        for layer, (k, v) in enumerate(zip(keys, values.to(receiver.model.dtype), strict=True)):
            self.cache.update(k[None], v[None], layer)

    def _alignment(self, header: SliceHeader, plan: Plan) -> tuple[Tensor, Tensor]:
        """Receiver positions that are fused, and for each the exported position that feeds it (both int64)."""
        prompt, device = self._prompt, self._receiver.model.device
        shared = shared_positions(prompt.offsets, self._sections, self._spans).fused(len(prompt.ids))
        named = torch.tensor(header.spans, dtype=torch.int64, device="cpu").reshape(-1, 3)
        fused, source = shared.fed(named, header.tail, plan.last > 0)
        return fused.to(device), source.to(device)

    def _awaited(self, announced: set[tuple[SegmentKind, int]]) -> dict[int, list[tuple[SegmentKind, int]]]:
        """For each Receiver layer that is to be fused, the announced segments that it reads."""
        head = self._receiver.bundle.require_fuse()
        awaited: dict[int, list[tuple[SegmentKind, int]]] = {}
        for layer, reads in enumerate(head.open_layers()):
            if any(reads):
                source = source_of(head, layer)
                kinds = (SegmentKind.KEY, SegmentKind.VALUE)
                wanted = [(kind, source) for kind, read in zip(kinds, reads, strict=True) if read]
                wanted += [(kind, layer) for kind in HALVES]
                awaited[layer] = [segment for segment in wanted if segment in announced]
        return {layer: segments for layer, segments in awaited.items() if segments}

    def _fuse_ready(self) -> None:
        for layer, segments in list(self._waiting.items()):
            if all(segment in self._arrived for segment in segments):
                del self._waiting[layer]
                self._fuse(layer, {kind: self._arrived[kind, number] for kind, number in segments})

    def _fuse(self, layer: int, sharer: dict[SegmentKind, Tensor]) -> None:
        """Merge what came for one Receiver layer, by its kind, into the cache."""
        rope, head = self._receiver.rope, self._receiver.bundle.require_fuse()
        mine = self.cache.layers[layer]
        at = self._targets
        keys, values = mine.keys[:, :, at], mine.values[:, :, at]
        bare = keys if head.rotated_keys else rope.unrotate(keys, at, layer)
        theirs = {kind: tensor[None][..., self._gather, :] for kind, tensor in sharer.items()}
        if any(kind.is_code for kind in theirs):
            fused_keys, fused_values = self._fused_from_halves(layer, theirs, bare, values)
        else:
            fused_keys, fused_values = head.fuse_layer(
                layer, theirs.get(SegmentKind.KEY), theirs.get(SegmentKind.VALUE), bare, values
            )
        if fused_keys is not bare:
            turned = fused_keys if head.rotated_keys else rope.rotate(fused_keys, at, layer)
            mine.keys[:, :, at] = turned.to(mine.keys.dtype)
        if fused_values is not values:
            mine.values[:, :, at] = fused_values.to(mine.values.dtype)

    def _fused_from_halves(
        self, layer: int, theirs: dict[SegmentKind, Tensor], keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `FuseHead.fuse_layer`, from source halves (1, positions, rank) by their kind."""
        head, fused = split_head(self._receiver.bundle), [keys, values]
        gates = head.open_halves(layer)
        for kind, half in theirs.items():
            halves = HALVES[kind]
            ours = torch.stack(fused[halves.start : halves.stop])
            merged = head.fuse_from_half(layer, halves, half[None], ours)
            for at, one in zip(halves, merged, strict=True):
                if gates[at]:  # keys that nothing changed are not turned again: that would round them
                    fused[at] = one
        return fused[0], fused[1]
