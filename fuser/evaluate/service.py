"""Rows whose slices are cut, taken in and read by the very code of the service, one question at a time.

shared              the question's positions, fused: the Sharer has read the document before them
shared-mismatched   the same positions, but the Sharer has read the stranger's document
summary             the summary of the document for the question
summary-mismatched  the summary of the stranger's document for the stranger's question
"""

from __future__ import annotations

import time

from torch import Tensor

from fuser.bundle import Bundle
from fuser.evaluate.batch import first_line
from fuser.evaluate.dial import registry_of
from fuser.evaluate.models import Model
from fuser.evaluate.questions import DocumentQuestion
from fuser.evaluate.relay import ANSWER_TOKENS, sharer_sections
from fuser.receiver import Receiver
from fuser.sharer import Sharer
from fuser.slice_specs import most_positions
from fuser.train.reading import WITHHELD
from kvwire.payload import payload_codec
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import Segment, SegmentSpec, SliceHeader, SliceKind


class ServiceRows:
    """Sharer and Receiver in one process, without a wire between them."""

    def __init__(self, sharer: Model, receiver: Model, bundle: Bundle) -> None:
        self._sharer = Sharer(sharer.network, sharer.tokenizer, bundle)
        self._receiver = Receiver(receiver.network, receiver.tokenizer, bundle)
        self._bundle = bundle

    def answer(
        self, kind: SliceKind, question: DocumentQuestion, document: str, asked: str, plan: Plan
    ) -> tuple[str, int, float]:
        """The Receiver's answer to `question` with the slice of `document` cut for the question `asked`.

        Returns:
            First line of the answer, payload bytes of the slice, seconds of both sides.
        """
        began = time.perf_counter()
        codec = payload_codec(plan, registry_of(self._bundle).get(plan.codec))
        most = 0 if kind is SliceKind.SHARED else most_positions(self._bundle, kind, plan)
        cut = self._sharer.plan(sharer_sections(document, asked), kind, most, plan)
        header = SliceHeader(bytes(16), kind, cut.specs, cut.spans, cut.tail)
        draft = self._receiver.begin(
            (WITHHELD, Section(Role.QUESTION, Visibility.SHARED, text=question.question))
        )
        draft.prefill(kind)
        draft.receive(header, plan)

        sent = 0

        def emit(spec: SegmentSpec, tensor: Tensor) -> None:
            nonlocal sent
            payload = codec.encode(tensor, spec)
            sent += len(payload)
            draft.add(Segment(spec, codec.decode(payload, spec)))

        self._sharer.run(cut, emit)
        text = ""
        for piece in draft.generate(ANSWER_TOKENS):
            text += piece
            if "\n" in text.lstrip():
                break
        return first_line(text), sent, time.perf_counter() - began
