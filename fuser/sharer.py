"""The Sharer: read a prompt and cut the slice that travels.

`layout` renders and tokenises, so what a slice can have at most is known before any layer is computed. `read` and `cut`
make a whole slice. `steps` makes the same one for a service: it says what to prefill, and hands out segments, those of
a shared slice layer after layer while the next one computes, those of an excerpt or a draft at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.heads.selection import choose
from fuser.kv.geometry import Geometry
from fuser.kv.past import PrefixCache
from fuser.kv.prefix_store import PrefixStore
from fuser.reader import Caller, Reader, Steps
from fuser.reading import Cut, Reading, SharerPrompt, cut_draft, cut_excerpt, cut_shared
from fuser.slice_specs import made_from, shared_segment
from kvwire.errors import Unsupported
from kvwire.plan import WHOLE, Plan
from kvwire.section import Section
from kvwire.segment import Segment, SegmentKind, SegmentSpec, SliceKind

__all__ = ["Announce", "Caller", "Cut", "Emit", "Reading", "Sharer", "SharerPrompt", "Steps"]

Emit = Callable[[SegmentSpec, Tensor], None]
Announce = Callable[[Cut], None]


class Sharer(Reader):
    """A Sharer model with the bundle that says what to cut. The steps of several calls may take turns on one thread.

    The bundle's heads are moved to the model's device; what is emitted is on the CPU.

    Args:
        prefixes: as `Reader` takes it.
        store: likewise.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        bundle: Bundle,
        prefixes: PrefixCache | None = None,
        store: PrefixStore | None = None,
    ) -> None:
        geometry = Geometry.of(model.config)
        if geometry != bundle.config.sharer_geometry:
            raise Unsupported(
                f"bundle wants a Sharer of {bundle.config.sharer_geometry}, this model is {geometry}"
            )
        self.bundle = bundle.to(model.device)
        config = bundle.config
        super().__init__(
            model,
            tokenizer,
            config.sharer_prompt,
            config.selection,
            self.bundle.scorer,
            prefixes,
            store,
            self.bundle.answerable,
        )

    def forget(self, owner: str) -> None:
        """Let go of what was read for an owner and kept in memory for the next question."""
        self._prefixes.forget(owner)

    def settle(self) -> None:
        """Wait until what was read is on disk, where it is kept there."""
        if self._store is not None:
            self._store.flush()

    def layout(
        self,
        prompt: SharerPrompt | Sequence[Section],
        kind: SliceKind,
        max_positions: int,
        plan: Plan = WHOLE,
    ) -> Cut:
        """Say what will be cut of a prompt; sections are rendered and tokenised first.

        Args:
            prompt: or every section of it with its text; documents already resolved.
            max_positions: excerpt and draft positions allowed; the plan may want fewer.
            plan: what of the slice to cut; its codec and padding are not ours.

        Raises:
            Unsupported: the bundle cannot make this kind of slice, or not by this plan.
            InvalidRequest: the sections or the plan do not fit the kind, or the plan asks for what there is not.
        """
        prompt = prompt if isinstance(prompt, SharerPrompt) else self.prompt(prompt)
        if kind is SliceKind.SHARED:
            return cut_shared(prompt, self.bundle, plan, self._dtype)
        cut = cut_draft if kind is SliceKind.DRAFT else cut_excerpt
        return cut(prompt, self.bundle, plan, max_positions)

    def cut(self, reading: Reading, layout: Cut) -> list[Segment]:
        """Cut a slice from what was read; on the model's device.

        Args:
            reading: of the layout's prompt, with the layers that are cut at the positions exported; with scores where
                positions are chosen, and with the draft where it is cut.

        Raises:
            ValueError: the reading lacks positions that are cut.
        """
        if layout.kind is not SliceKind.SHARED:
            settled, at = self._settled(layout, reading)
            return [Segment(spec, self._codes(reading, at, spec)) for spec in settled.specs]
        among = reading.among(layout.exported)
        found: dict[SegmentSpec, Tensor] = {}
        for layer, specs in self._wanted(layout).items():
            keys, values = reading.kv[layer]
            found |= dict(self._parts(specs, layer, keys[:, among], values[:, among], reading.at[among]))
        return [Segment(spec, found[spec]) for spec in layout.specs]

    def run(
        self,
        layout: Cut,
        emit: Emit,
        caller: Caller = Caller(),  # noqa: B008 - frozen
        announce: Announce = lambda cut: None,
    ) -> None:
        """Take all `steps`, and prefill what they say.

        Raises:
            Cancelled: `caller.cancelled()` became true.
        """
        self._run({0: self.steps(layout, emit, caller, announce)})

    def steps(
        self,
        layout: Cut,
        emit: Emit,
        caller: Caller = Caller(),  # noqa: B008 - frozen
        announce: Announce = lambda cut: None,
    ) -> Steps[None]:
        """What is to be prefilled for a slice; emits every segment of it, in the order of the specs announced.

        Args:
            announce: called once, before any segment, with what is cut in the end: the positions chosen and written.
            emit: called while a prefill runs, or between two; the tensor is on the CPU and its own to keep.
        """
        if not layout.specs:
            announce(layout)
            return
        if layout.kind is not SliceKind.SHARED:
            layers, at = self.bundle.require_translate().layers, layout.exported
            reading = yield from self.reading(
                layout.prompt,
                layers,
                at if layout.quoted else at[:0],
                caller,
                asking=layout.quoted > 0,
                draft=layout.drafting,
            )
            settled, among = self._settled(layout, reading)
            announce(settled)
            for spec in settled.specs:
                emit(spec, self._codes(reading, among, spec).cpu())
            return
        announce(layout)
        at, wanted = layout.exported.to(self.model.device), self._wanted(layout)

        def on_layer(layer: int, keys: Tensor, values: Tensor) -> None:
            for spec, tensor in self._parts(wanted[layer], layer, keys, values, at):
                emit(spec, tensor.cpu())

        yield from self.reading(layout.prompt, wanted, at, caller, on_layer=on_layer)

    def answering(
        self,
        prompt: SharerPrompt,
        max_new_tokens: int,
        caller: Caller = Caller(),  # noqa: B008 - frozen
        max_bytes: int = 0,
    ) -> Steps[tuple[str, int]]:
        """What is to be prefilled for the Sharer's own answer as text, and then the answer and its tokens.

        Args:
            max_new_tokens: tokens of it at most.
            max_bytes: of its UTF-8 at most; 0 is no cap.
        """

        def text(said: Sequence[int]) -> str:
            # A character of which only some bytes are said is left out.
            whole: str = self.tokenizer.decode(said, skip_special_tokens=True)
            return whole.rstrip("\ufffd")

        def ended(said: list[int]) -> bool:
            return said[-1] in self._stops or 0 < max_bytes < len(text(said).encode())

        nowhere = prompt.document[:0]
        reading = yield from self.reading(prompt, (), nowhere, caller, draft=max_new_tokens, ended=ended)
        return text(reading.draft), len(reading.draft)

    def answer(self, sections: Sequence[Section], max_new_tokens: int) -> str:
        """The Sharer's own answer (the Relay baseline)."""
        return self._run({0: self.answering(self.prompt(sections), max_new_tokens)})[0][0]

    def _wanted(self, layout: Cut) -> dict[int, list[SegmentSpec]]:
        """The segments of a shared slice that each Sharer layer gives."""
        head = self.bundle.require_fuse()
        wanted: dict[int, list[SegmentSpec]] = {}
        for spec in layout.specs:
            _, layer = made_from(head, spec.kind, spec.layer)
            wanted.setdefault(layer, []).append(spec)
        return wanted

    def _parts(
        self, specs: Sequence[SegmentSpec], layer: int, keys: Tensor, values: Tensor, at: Tensor
    ) -> Iterator[tuple[SegmentSpec, Tensor]]:
        """Segments of one Sharer layer, from its K, rotated, and V (kv_heads, positions, head_dim) at what is cut."""
        head = self.bundle.require_fuse()
        if not head.rotated_keys:
            keys = self.rope.unrotate(keys, at, layer)
        for spec in specs:
            kind, _ = made_from(head, spec.kind, spec.layer)
            half = keys if kind is SegmentKind.KEY else values
            yield spec, shared_segment(self.bundle, spec.kind, spec.layer, half)

    def _settled(self, layout: Cut, reading: Reading) -> tuple[Cut, Tensor]:
        """What is cut, and at which positions, once it was read: those chosen of the document, then the draft's."""
        written = reading.drafted if layout.drafting else reading.at[:0]
        if not layout.quoted:
            return layout.settled((), len(written), reading.certainty), written
        if reading.scores is None:
            raise ValueError("an excerpt is chosen by scores, and nothing asked while this was read")
        chosen = choose(
            reading.scores, layout.exported, self.selection, layout.quoted, layout.runs, layout.fit
        )
        settled = layout.settled(tuple(chosen.tolist()), len(written), reading.certainty)
        return settled, torch.cat((chosen.to(written.device), written))

    def _codes(self, reading: Reading, at: Tensor, spec: SegmentSpec) -> Tensor:
        """Codes of these positions, (positions, code_dim) float32."""
        head = self.bundle.require_translate()
        with torch.inference_mode():
            codes = head.encode(reading.features(head.layers, reading.among(at)))
            return codes[:, : spec.shape[1]]

    @property
    def _dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")
