"""Both models in one process, one after the other, as Cache-to-Cache is run (arXiv 2510.03215): a baseline in time.

The Sharer's whole forward pass with the logits of every position, the cut, the Receiver's whole forward pass with
logits, the fusing, then tokens up to the end of the first line. What is cut and how it is taken in is the service's own
code, without codec and wire.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_node.answer import FirstLine
from fuser.models.load import DeviceName, DtypeName
from kvwire.section import Section, Visibility
from kvwire.segment import Segment, SegmentSpec, SliceKind

if TYPE_CHECKING:
    from torch import Tensor

    from fuser import Cut

_EVERY_LAYER = 1 << 30


@dataclass(frozen=True, slots=True)
class Timed:
    """One answer. Seconds from the question to the first piece of text and to the last."""

    text: str
    first_s: float
    total_s: float


class Whole:
    """A causal language model that computes the logits of every position of a prompt, asked for or not."""

    def __init__(self, model: Any) -> None:
        from fuser.kv.turns import WIDTH

        self.bare, self._few = model, WIDTH

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)

    def get_decoder(self) -> Any:
        """The model's decoder, and its head after it."""
        return self._decode

    def _decode(self, *, input_ids: Tensor, **inputs: Any) -> Any:
        out = self.bare.get_decoder()(input_ids=input_ids, **inputs)
        if input_ids.shape[1] > self._few:
            self.bare.get_output_embeddings()(out.last_hidden_state)
        return out


class Sequential:
    """The pair of a bundle in this process.

    Args:
        threads: of torch, for both.
        device, dtype: of both.
    """

    def __init__(
        self,
        sharer: str,
        receiver: str,
        bundle: Path,
        threads: int,
        device: DeviceName = "auto",
        dtype: DtypeName = "auto",
    ) -> None:
        import torch

        from fuser import load_pair
        from fuser.kv.past import PrefixCache

        torch.set_num_threads(threads)
        self.sharer, self.receiver = load_pair(
            bundle, sharer=sharer, receiver=receiver, device=device, dtype=dtype
        )
        self.receiver.model = Whole(self.receiver.model)
        self.receiver.prefix_cache = PrefixCache(0)

    def answer(self, sections: Sequence[Section], kind: SliceKind, limit: int, max_new_tokens: int) -> Timed:
        """Answer a prompt whose documents stand in it as text; `limit`: document positions at most."""
        from fuser.kv.prefill import prefill_together
        from fuser.slice_specs import SliceLayout

        began = time.monotonic()
        prompt = dataclasses.replace(self.sharer.prompt(sections), prefix=0)
        cut = self.sharer.layout(prompt, kind, limit)
        announced: list[Cut] = []
        segments: list[Segment] = []

        def emit(spec: SegmentSpec, tensor: Tensor) -> None:
            segments.append(Segment(spec, tensor))

        for work in self.sharer.steps(cut, emit, announce=announced.append):
            work.last_layer = _EVERY_LAYER
            prefill_together(Whole(self.sharer.model), [work])
            if work.failure is not None:
                raise work.failure
        begun = self.receiver.begin([_withheld(section) for section in sections])
        (cut,) = announced
        intake = begun.prefill(kind).take(SliceLayout.of(cut))
        for segment in segments:
            intake.add(segment)
        line, text, first_s = FirstLine(), "", 0.0
        for piece in intake.done().generate(max_new_tokens):
            text += line.add(piece)
            first_s = first_s or (time.monotonic() - began if text else 0.0)
            if line.ended:
                break
        total_s = time.monotonic() - began
        return Timed(text, first_s or total_s, total_s)


def _withheld(section: Section) -> Section:
    if section.visibility is not Visibility.CLOUD:
        return section
    return dataclasses.replace(section, text=None, document_id="withheld")
