"""Shared slices as a plan sends them: cut, encoded, decoded and fused by the Receiver of the service, one at a time."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from fuser.bundle.bundle import Bundle
from fuser.cut import shared_layout
from fuser.lab.evaluate.choice.prompts import sections
from fuser.lab.evaluate.choice.slices import TRAVELS_AS, Heard
from fuser.lab.evaluate.plans import registry_of
from fuser.layout import SliceLayout
from fuser.prompts.choice import ChoiceItem, choice_prompt
from fuser.prompts.shared import SharedPositions
from fuser.receiver import Draft, Receiver
from fuser.slice_specs import made_from, shared_segment
from kvwire.codec import roundtrip
from kvwire.plan import Plan
from kvwire.segment import Segment, SliceKind
from kvwire.slice_io import most_bytes, payload_codec

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
        shared, layout = self._layout(heard, plan)
        codec = payload_codec(plan, registry_of(self._bundle).get(plan.codec))
        draft = self._receiver.begin(sections(choice_prompt(item))).prefill(SliceKind.SHARED)
        intake = draft.take(layout, plan)
        size = 0
        for spec in layout.specs:
            half = heard.segments[made_from(self._head, spec.kind, spec.layer)][:, shared.at]
            half = half.to(self._receiver.model.device)  # where the bundle's heads are
            part = shared_segment(self._bundle, spec.kind, spec.layer, half)
            (arrived,), (sent,) = roundtrip(codec, part[None], spec)
            intake.add(Segment(spec, arrived))
            size += sent
        return intake.done(), size

    def most_bytes(self, heard: Iterable[Heard], plan: Plan) -> int:
        """The most that the payload of any of these may come to by a plan."""
        codec = payload_codec(plan, registry_of(self._bundle).get(plan.codec))
        specs = {self._layout(one, plan)[1].specs for one in heard}
        return max(most_bytes(one, codec) for one in specs)

    def _layout(self, heard: Heard, plan: Plan) -> tuple[SharedPositions, SliceLayout]:
        """What a plan sends of what was read; the positions are counted among those read."""
        count = len(heard.spans) + heard.tail
        every = SharedPositions(torch.arange(count, device="cpu"), heard.spans, heard.tail)
        shared = every.last(plan.last)
        return shared, shared_layout(shared, self._bundle, plan, _DTYPE)
