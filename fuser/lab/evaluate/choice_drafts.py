"""The Sharer's own short replies to shared prompts, as draft slices: what it writes, and how a Receiver takes it in."""

from __future__ import annotations

import time
from functools import lru_cache

import torch
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.plans import registry_of
from fuser.lab.evaluate.speaker import sections
from fuser.prompts.choice import ChoiceItem, choice_prompt
from fuser.receiver import Prefilled, Receiver
from fuser.sharer import Sharer
from fuser.slice_specs import MAX_WRITTEN, most_written, slice_specs
from kvwire.codec import roundtrip
from kvwire.plan import Plan
from kvwire.segment import SliceKind
from kvwire.slice_io import payload_codec


class ChoiceDrafts:
    """Drafts between a Sharer and a Receiver, one question at a time; what was written is kept in memory.

    Raises:
        Unsupported: the bundle has no translate head, or is for other models.
    """

    def __init__(self, bundle: Bundle, sharer: Model, receiver: Receiver) -> None:
        self._bundle, self._head, self._receiver = bundle, bundle.require_translate(), receiver
        self._sharer = Sharer(sharer.network, sharer.tokenizer, bundle)
        self._written = lru_cache(maxsize=None)(self._write)

    def prefilled(self, item: ChoiceItem, other: ChoiceItem, plan: Plan) -> tuple[Prefilled, int, float]:
        """A question's prompt behind the draft for another or its own; the draft's bytes by a plan; seconds of both."""
        codes, seconds = self._written(other)
        codes, started = codes[: most_written(plan)], time.perf_counter()
        prefilled = self._receiver.begin(sections(choice_prompt(item))).prefill(SliceKind.DRAFT)
        size = 0
        for spec in slice_specs(self._bundle, SliceKind.DRAFT, plan, len(codes), "float32"):
            codec = payload_codec(plan, registry_of(self._bundle).get(plan.codec))
            arrived, (size,) = roundtrip(codec, codes[None, :, : spec.shape[1]], spec)
            prefilled.put_codes(arrived)
        return prefilled, size, seconds + time.perf_counter() - started

    def _write(self, item: ChoiceItem) -> tuple[Tensor, float]:
        """Codes (positions, values) of what the Sharer replies to a question, and its seconds."""
        cut = self._sharer.layout(sections(choice_prompt(item)), SliceKind.DRAFT, MAX_WRITTEN)
        started = time.perf_counter()
        with torch.inference_mode():
            (reading,) = self._sharer.read(
                [cut.prompt], self._head.layers, [cut.exported], draft=cut.drafting
            )
            parts = [segment.tensor for segment in self._sharer.cut(reading, cut)]
        empty = torch.zeros(0, self._head.code_dim, device="cpu")
        return torch.cat([empty, *(part.cpu() for part in parts)]), time.perf_counter() - started
