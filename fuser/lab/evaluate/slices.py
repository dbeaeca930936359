"""What may stand before a question in place of text: KV of an excerpt, from whichever model, however it was sent."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from fuser.bundle.bundle import Bundle
from fuser.lab.evaluate.excerpt import QuestionExcerpts
from fuser.lab.evaluate.plans import registry_of
from fuser.lab.train.reading import KV, FrozenReceiver
from fuser.prompts.shared import read_as
from fuser.slice_specs import slice_specs
from kvwire.codec import roundtrip
from kvwire.plan import Plan
from kvwire.segment import SliceKind
from kvwire.slice_io import payload_codec


class Slices(Protocol):
    """KV before questions."""

    def count(self, index: int) -> int:
        """Sharer positions that stand before a question; as many or a multiple of them are taken."""

    def take(self, indices: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Of questions with equal counts: KV (questions, positions, width) float32, keys re-based; payload bytes."""


class Translated:
    """Excerpts as they arrive: encoded by the bundle, sent by a plan, expanded to Receiver KV."""

    def __init__(self, bundle: Bundle, excerpts: QuestionExcerpts, plan: Plan) -> None:
        self._head = bundle.require_translate()
        self._codec = payload_codec(plan, registry_of(bundle).get(plan.codec))
        self._specs = partial(slice_specs, bundle, SliceKind.EXCERPT, plan, dtype="float32")
        self._excerpts = excerpts

    def count(self, index: int) -> int:
        return self._excerpts.count(index)

    def take(self, indices: Sequence[int]) -> tuple[Tensor, list[int]]:
        with torch.inference_mode():
            features = self._excerpts.features(indices)
            codes = self._head.encode(features.to(self._head.input_mean.device))
            (spec,) = self._specs(positions=codes.shape[1])
            sent = spec.shape[1]
            arrived, sizes = roundtrip(self._codec, codes[..., :sent], spec)
            return self._head.expand(functional.pad(arrived, (0, self._head.code_dim - sent))), sizes


class ReceiversOwn:
    """Excerpts as the Receiver would have read them behind what stands before a slice. Nothing is sent.

    Args:
        before: K (rotated) and V of what stands there: a prompt's head and the bundle's learnt prefix.
        receiver_positions: for each of the Sharer's, as many as the bundle's codes are expanded to.
    """

    def __init__(
        self, reading: FrozenReceiver, before: KV, excerpts: QuestionExcerpts, receiver_positions: int
    ) -> None:
        self._reading = reading
        self._each = receiver_positions
        self._excerpts = excerpts
        self._before = before
        self._taken: dict[int, Tensor] = {}  # of questions whose document was read for another one

    def count(self, index: int) -> int:
        return self._excerpts.count(index)

    def take(self, indices: Sequence[int]) -> tuple[Tensor, list[int]]:
        for index in indices:
            if index not in self._taken:
                self._read(index)
        return torch.stack([self._taken.pop(index) for index in indices]), [0] * len(indices)

    def _read(self, index: int) -> None:
        text, spans = self._excerpts.document(index)
        kv, offsets = self._reading.text_kv(text, self._before)
        at = read_as(spans, offsets, self._each)
        for other in self._excerpts.alongside(index):
            self._taken[other] = kv[at[self._excerpts.positions(other)].flatten()]
