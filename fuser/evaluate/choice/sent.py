"""Shared slices as a plan sends them: cut, encoded, decoded and fused by the Receiver of the service, one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from fuser.bundle import Bundle
from fuser.data.choice import ChoiceItem, choice_prompt
from fuser.evaluate.choice.prompts import sections
from fuser.evaluate.choice.slices import TRAVELS_AS, Heard
from fuser.evaluate.plans import registry_of
from fuser.fuse_shapes import KEYS
from fuser.layout import SliceLayout
from fuser.receiver import Draft, Receiver
from fuser.shared import SharedPositions
from fuser.slice_specs import HALVES, slice_specs, source_of, split_head
from kvwire.codec import roundtrip
from kvwire.payload import most_bytes, payload_codec
from kvwire.plan import Plan
from kvwire.segment import Segment, SegmentKind, SegmentSpec, SliceKind

_DTYPE = str(TRAVELS_AS).removeprefix("torch.")


class SentSlices:
    """What one question at a time becomes behind a slice; what a plan leaves out is the business of the Receiver.

    Raises:
        Unsupported: the bundle makes no shared slices.
    """

    def __init__(self, bundle: Bundle, receiver: Receiver) -> None:
        self._bundle, self._head, self._receiver = bundle, bundle.require_fuse(), receiver

    def draft(self, item: ChoiceItem, heard: Heard, plan: Plan) -> tuple[Draft, int]:
        """A question's draft, prefilled and fused with a slice by a plan; and the slice's payload bytes."""
        cut = _cut(heard, plan)
        specs = slice_specs(self._bundle, SliceKind.SHARED, plan, len(cut.at), _DTYPE)
        spans = tuple((section, low, high) for section, low, high in cut.spans.tolist())
        codec = payload_codec(plan, registry_of(self._bundle).get(plan.codec))
        draft = self._receiver.begin(sections(choice_prompt(item))).prefill(SliceKind.SHARED)
        intake = draft.take(SliceLayout(SliceKind.SHARED, specs, spans, cut.tail), plan)
        size = 0
        for spec in specs:
            (arrived,), (sent,) = roundtrip(codec, self._part(spec, heard.segments, cut)[None], spec)
            intake.add(Segment(spec, arrived))
            size += sent
        return intake.done(), size

    def most_bytes(self, heard: Iterable[Heard], plan: Plan) -> int:
        """The most that the payload of any of these may come to by a plan."""
        codec = payload_codec(plan, registry_of(self._bundle).get(plan.codec))
        counts = {len(_cut(one, plan).at) for one in heard}
        return max(
            most_bytes(slice_specs(self._bundle, SliceKind.SHARED, plan, count, _DTYPE), codec)
            for count in counts
        )

    def _part(
        self, spec: SegmentSpec, read: Mapping[tuple[SegmentKind, int], Tensor], cut: SharedPositions
    ) -> Tensor:
        """What a segment holds: K or V of a Sharer layer at the positions cut, or a source half made of them."""
        if not spec.kind.is_code:
            return read[spec.kind, spec.layer][:, cut.at]
        halves, source = HALVES[spec.kind], source_of(self._head, spec.layer)
        kinds = [SegmentKind.KEY if half == KEYS else SegmentKind.VALUE for half in halves]
        both = torch.stack([read[kind, source][:, cut.at].float() for kind in kinds])[:, None]
        with torch.inference_mode():
            return split_head(self._bundle).source_half(spec.layer, halves, both)[0, 0]


def _cut(heard: Heard, plan: Plan) -> SharedPositions:
    """The positions of what was read that a plan sends: `at` counts them, not the Sharer's prompt."""
    every = torch.arange(len(heard.spans) + heard.tail, device=heard.spans.device)
    return SharedPositions(every, heard.spans, heard.tail).last(plan.last)
