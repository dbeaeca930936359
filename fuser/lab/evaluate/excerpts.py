"""Excerpts of documents: the positions that a Sharer chose, and what may stand of them before a Receiver's question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from fuser.bundle.bundle import Bundle
from fuser.heads.selection import SelectionConfig
from fuser.lab.evaluate.plans import registry_of
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.lab.train.cache import FeatureCache
from fuser.lab.train.cached import Cached, CachedQuestion
from fuser.lab.train.excerpt import Example, Excerpts
from fuser.lab.train.reading import KV, FrozenReceiver
from fuser.lab.train.regress import those_of
from fuser.prompts.shared import read_as
from fuser.slice_specs import most_quoted, most_written, slice_specs
from kvwire.codec import roundtrip
from kvwire.plan import Plan
from kvwire.segment import UNTOLD, Certainty, SliceKind
from kvwire.slice_io import payload_codec


class QuestionExcerpts:
    """The excerpts of questions, as a bundle with this selection chooses them.

    Args:
        bundle: with a translate head.
        cache: of the bundle's Sharer, prompt style and selection; it must hold every question.
        selection: the bundle's own, or with a plan's positions. runs, fit: as a plan has them.
    """

    def __init__(
        self,
        bundle: Bundle,
        cache: FeatureCache,
        questions: Sequence[DocumentQuestion],
        selection: SelectionConfig,
        runs: int = 0,
        fit: bool = False,
    ) -> None:
        self._chosen = Excerpts(cache, selection, bundle.require_translate(), runs, fit)
        self._examples = _examples(cache, questions)
        self._odds = _odds(bundle, cache)

    def count(self, index: int) -> int:
        """Positions of a question's excerpt."""
        return len(self.positions(index))

    def positions(self, index: int) -> Tensor:
        """The excerpt's positions within the document, ascending int64."""
        return self._chosen.chosen(*self._examples[index])

    def tokens(self, index: int) -> tuple[int, ...]:
        """Tokens that were written for a slice: none."""
        return ()

    def certainty(self, index: int) -> Certainty:
        """How sure the Sharer is; it writes no answer."""
        return Certainty(answerable=self._odds(*self._examples[index]))

    def document(self, index: int) -> tuple[str, Tensor]:
        """A question's document as it stands in prompts, and the characters of the Sharer's tokens, (positions, 2)."""
        document, _ = self._examples[index]
        return document.text, document.spans

    def features(self, indices: Sequence[int]) -> Tensor:
        """Features of excerpts of equal counts, of the layers that the translate head reads, unscaled."""
        return self._chosen.features([self._examples[i] for i in indices])

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


class QuestionDrafts:
    """The Sharer's drafts, behind what a plan quotes; arguments as of `QuestionExcerpts`, whose cache keeps drafts."""

    def __init__(
        self,
        bundle: Bundle,
        cache: FeatureCache,
        questions: Sequence[DocumentQuestion],
        plan: Plan,
    ) -> None:
        selection = bundle.config.selection
        self._quoted = most_quoted(bundle, plan)
        self._chosen = Excerpts(cache, selection, bundle.require_translate(), plan.runs, plan.fit)
        most = most_written(plan)
        self._examples = [(d, replace(q, drafted=q.drafted[:most])) for d, q in _examples(cache, questions)]
        self._odds = _odds(bundle, cache)

    def count(self, index: int) -> int:
        """Positions of a question's slice."""
        return len(self.positions(index)) + len(self.tokens(index))

    def features(self, indices: Sequence[int]) -> Tensor:
        """Features of slices of equal counts, of the layers that the translate head reads, unscaled."""
        return torch.stack([self._chosen.of_draft(*self._examples[i], self._quoted) for i in indices])

    def positions(self, index: int) -> Tensor:
        """Positions of the document before the draft, ascending int64."""
        return self._chosen.chosen(*self._examples[index], self._quoted)

    def tokens(self, index: int) -> tuple[int, ...]:
        """The draft's tokens that are sent."""
        _, question = self._examples[index]
        return question.draft[: len(question.drafted)]

    def certainty(self, index: int) -> Certainty:
        """How sure the Sharer is of its draft."""
        document, question = self._examples[index]
        return Certainty(min(question.likely, default=None), self._odds(document, question))

    def written(self, index: int) -> str:
        """The text of a question's draft."""
        return self._examples[index][1].written


def _odds(bundle: Bundle, cache: FeatureCache) -> Callable[[Cached, CachedQuestion], float | None]:
    """Tells the log-odds that a document holds the answer; None where the bundle cannot."""
    head, per_layer = bundle.answerable, 2 * bundle.config.sharer_geometry.layer_width

    def odds(document: Cached, question: CachedQuestion) -> float | None:
        if head is None:
            return None
        features = cache.raw(document, torch.tensor([question.asked], device="cpu"))
        return float(head(those_of(features, head.config.layers, per_layer).to(head.weight.device)))

    return odds


def _examples(cache: FeatureCache, questions: Sequence[DocumentQuestion]) -> list[Example]:
    held = {(d.text, q.text): (d, q) for d in cache.documents for q in d.questions}
    return [held[q.document, q.question] for q in questions]


class Slices(Protocol):
    """What may stand before questions."""

    def count(self, index: int) -> int:
        """Positions of the Sharer's in a question's slice; as many or a multiple of them are taken."""
        ...

    def take(self, indices: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Of questions with equal counts: KV (questions, positions, width) float32, keys re-based; payload bytes."""
        ...

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
        excerpts: QuestionExcerpts | QuestionDrafts,
        plan: Plan,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        kind = SliceKind.DRAFT if isinstance(excerpts, QuestionDrafts) else SliceKind.EXCERPT
        self._head = bundle.require_translate()
        self._codec = payload_codec(plan, registry_of(bundle).get(plan.codec))
        self._specs = partial(slice_specs, bundle, kind, plan, dtype="float32")
        self._change = change
        self._excerpts = excerpts
        self.count, self.certainty = excerpts.count, excerpts.certainty

    @torch.inference_mode()
    def take(self, indices: Sequence[int]) -> tuple[Tensor, list[int]]:
        """As in `Slices`."""
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
        self, reading: FrozenReceiver, before: KV, excerpts: QuestionExcerpts, receiver_positions: int
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
        """As in `Slices`."""
        taken = []
        for index in indices:
            text, spans = self._excerpts.document(index)
            kv, offsets = self._read(text)
            at = read_as(spans, offsets, self._each)
            taken.append(kv[at[self._excerpts.positions(index)].flatten()])
        return torch.stack(taken), [0] * len(indices)


class ReceiversDrafts:
    """The Receiver's own short answers, as it has them where it says them behind a document. Nothing is sent.

    Args:
        before: as in `ReceiversOwn`.
        said: by a question's index the tokens of its prompt behind that, document and all, and those of the answer.
    """

    def __init__(
        self, reading: FrozenReceiver, before: KV, said: Mapping[int, tuple[Tensor, Tensor]]
    ) -> None:
        self._reading, self._before, self._said = reading, before, said

    def count(self, index: int) -> int:
        """Positions of a question's slice."""
        return len(self._said[index][1])

    def certainty(self, index: int) -> Certainty:
        """As in `Slices`: no Sharer tells."""
        return UNTOLD

    def take(self, indices: Sequence[int]) -> tuple[Tensor, list[int]]:
        """As in `Slices`."""
        read = (self._reading.read(torch.cat(self._said[i]), self._before)[1] for i in indices)
        taken = [kv[-self.count(index) :] for index, kv in zip(indices, read, strict=True)]
        return torch.stack(taken), [0] * len(indices)
