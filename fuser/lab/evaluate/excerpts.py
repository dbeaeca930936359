"""Excerpts of documents: the positions that a Sharer chose, and what may stand of them before a Receiver's question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from fuser.bundle.bundle import Bundle
from fuser.lab.evaluate.plans import registry_of
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.lab.train.cache import FeatureCache
from fuser.lab.train.excerpt import Excerpts
from fuser.lab.train.reading import KV, FrozenReceiver
from fuser.lab.train.regress import those_of
from fuser.prompts.shared import read_as
from fuser.slice_specs import most_quoted, most_written, slice_specs
from kvwire.codec import roundtrip
from kvwire.plan import Plan
from kvwire.segment import UNTOLD, Certainty, SliceKind
from kvwire.slice_io import payload_codec


class QuestionSlices:
    """The excerpts of questions, or the Sharer's drafts behind what is quoted, as a bundle makes them by a plan.

    Args:
        bundle: with a translate head.
        cache: of the bundle's Sharer, prompt style and selection; it must hold every question, and for drafts theirs.
        plan: an excerpt has as many positions as it says, or as the bundle's selection does.
    """

    def __init__(
        self,
        bundle: Bundle,
        cache: FeatureCache,
        questions: Sequence[DocumentQuestion],
        kind: SliceKind,
        plan: Plan,
    ) -> None:
        self.kind, selection, drafts = kind, bundle.config.selection, kind is SliceKind.DRAFT
        if not drafts:
            selection = replace(selection, positions=plan.positions or selection.positions)
        self._quoted = most_quoted(bundle, plan) if drafts else selection.positions
        self._chosen = Excerpts(cache, selection, bundle.require_translate(), plan.runs, plan.fit)
        most = most_written(plan) if drafts else 0
        held = {(d.text, q.text): (d, q) for d in cache.documents for q in d.questions}
        self._examples = [
            (d, replace(q, drafted=q.drafted[:most], likely=q.likely if drafts else ()))
            for d, q in (held[q.document, q.question] for q in questions)
        ]
        self._cache, self._head = cache, bundle.answerable
        self._per_layer = 2 * bundle.config.sharer_geometry.layer_width

    def count(self, index: int) -> int:
        return len(self.positions(index)) + len(self.tokens(index))

    def positions(self, index: int) -> Tensor:
        return self._chosen.chosen(*self._examples[index], self._quoted)

    def tokens(self, index: int) -> tuple[int, ...]:
        """The draft's tokens that are sent; none of an excerpt."""
        _, question = self._examples[index]
        return question.draft[: len(question.drafted)]

    def certainty(self, index: int) -> Certainty:
        """How sure the Sharer is: of its draft, and that the document holds the answer where the bundle can tell."""
        document, question = self._examples[index]
        odds, head = None, self._head
        if head is not None:
            features = self._cache.raw(document, torch.tensor([question.asked], device="cpu"))
            odds = float(head(those_of(features, head.config.layers, self._per_layer).to(head.weight.device)))
        return Certainty(min(question.likely, default=None), odds)

    def document(self, index: int) -> tuple[str, Tensor]:
        """A question's document as it stands in prompts, and the characters of the Sharer's tokens, (positions, 2)."""
        document, _ = self._examples[index]
        return document.text, document.spans

    def features(self, indices: Sequence[int]) -> Tensor:
        """Features of slices of equal counts, of the layers that the translate head reads, unscaled."""
        return torch.stack([self._chosen.of_draft(*self._examples[i], self._quoted) for i in indices])

    def quote(self, index: int) -> str:
        """The characters of the excerpt's tokens, neighbours joined, gaps as dots: the rival at equal exposure."""
        text, spans = self.document(index)
        parts: list[str] = []
        last = -1
        for start, end in spans[self.positions(index)].tolist():
            if start > last:
                parts.append(" ... " if parts else "")
            parts.append(text[max(start, last) : end])
            last = max(last, end)
        return "".join(parts)

    def written(self, index: int) -> str:
        return self._examples[index][1].written


class Slices(Protocol):
    """What may stand before questions."""

    def count(self, index: int) -> int: ...

    def take(self, indices: Sequence[int]) -> tuple[Tensor, list[int]]: ...

    def certainty(self, index: int) -> Certainty:
        """How sure the Sharer is, as `Cut.certainty`."""
        ...


class Translated:
    """Excerpts or drafts as they arrive: encoded by the bundle, sent by a plan, expanded to Receiver KV.

    Args:
        change: what a control makes of codes (questions, positions, values) before they are sent.
    """

    def __init__(
        self,
        bundle: Bundle,
        excerpts: QuestionSlices,
        plan: Plan,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._head = bundle.require_translate()
        self._codec = payload_codec(plan, registry_of(bundle).get(plan.codec))
        self._specs = partial(slice_specs, bundle, excerpts.kind, plan, dtype="float32")
        self._change = change
        self._excerpts = excerpts
        self.count, self.certainty = excerpts.count, excerpts.certainty

    @torch.inference_mode()
    def take(self, indices: Sequence[int]) -> tuple[Tensor, list[int]]:
        features = self._excerpts.features(indices)
        codes = self._head.encode(features.to(self._head.input_mean.device))
        codes = codes if self._change is None else self._change(codes)
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
        self, reading: FrozenReceiver, before: KV, excerpts: QuestionSlices, receiver_positions: int
    ) -> None:
        self._each = receiver_positions
        self._excerpts = excerpts
        self._read = lru_cache(maxsize=2)(
            partial(reading.text_kv, past=before)
        )  # one document after the other
        self.count = excerpts.count

    def certainty(self, index: int) -> Certainty:
        """As in `Slices`: no Sharer tells."""
        return UNTOLD

    def take(self, indices: Sequence[int]) -> tuple[Tensor, list[int]]:
        taken = []
        for index in indices:
            text, spans = self._excerpts.document(index)
            kv, offsets = self._read(text)
            at = read_as(spans, offsets, self._each)
            taken.append(kv[at[self._excerpts.positions(index)].flatten()])
        return torch.stack(taken), [0] * len(indices)
