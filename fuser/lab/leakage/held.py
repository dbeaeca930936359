"""Slices as the edge holds them, and what stands where in the document, which the attacks are marked by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from fuser.bundle.bundle import Bundle
from fuser.lab.evaluate.excerpts import QuestionSlices
from fuser.lab.evaluate.plans import registry_of
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.lab.train.cache import FeatureCache
from fuser.lab.train.cached import Cached
from fuser.lab.train.excerpt import Excerpts
from fuser.reading import SharerPrompt
from fuser.slice_specs import most_positions, slice_specs
from kvwire.codec import roundtrip
from kvwire.plan import Plan
from kvwire.segment import SliceKind
from kvwire.slice_io import payload_codec

NOTHING = -1
"""In place of a token where none stands."""


@dataclass(frozen=True, slots=True)
class Held:
    """One slice; a row of codes and a token for each of its positions, those of a draft behind those of the document.

    codes: (positions, values) float32, as decoded. tokens: (positions,) int64, what the Sharer read there. at:
    positions within the document, int64, of those that are the document's. document, question: their numbers. size:
    payload bytes.
    """

    codes: Tensor
    tokens: Tensor
    at: Tensor
    document: int
    question: int
    size: int

    def beside(self, document: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """What stands `step` further on in the document (its tokens), NOTHING past its ends and behind a draft's.

        Returns:
            (positions,) int64, and whether that position is in the slice itself.
        """
        wanted = self.at + step
        inside = (wanted >= 0) & (wanted < len(document))
        tokens = torch.where(inside, document[wanted.clamp(0, len(document) - 1)], NOTHING)
        rest = (0, len(self.tokens) - len(self.at))
        return functional.pad(tokens, rest, value=NOTHING), functional.pad(torch.isin(wanted, self.at), rest)


class SliceReader:
    """Cuts and decodes slices of cached documents by a plan.

    Args:
        prompts: for each cached document its prompt, which has the tokens.
    """

    def __init__(
        self,
        bundle: Bundle,
        cache: FeatureCache,
        prompts: Sequence[SharerPrompt],
        kind: SliceKind,
        plan: Plan,
    ) -> None:
        self._bundle, self._cache, self._kind, self._plan = bundle, cache, kind, plan
        self._head = bundle.require_translate()
        self._codec = payload_codec(plan, registry_of(bundle).get(plan.codec))
        self._specs = partial(slice_specs, bundle, kind, plan, dtype="float32")
        self.tokens = [prompt.tokens.ids[prompt.document] for prompt in prompts]
        """Of each document, int64."""
        self._number = {document.text: number for number, document in enumerate(cache.documents)}
        self._rows = Excerpts(cache, bundle.config.selection, self._head)

    def of_questions(self, questions: Sequence[DocumentQuestion]) -> Iterator[Held]:
        """The slice that answers each question; none where nothing is sent."""
        plan = self._plan
        if self._kind is SliceKind.EXCERPT:  # as the service does: no more than the bundle's
            plan = replace(plan, positions=most_positions(self._bundle, plan, self._kind))
        chosen = QuestionSlices(self._bundle, self._cache, questions, self._kind, plan)
        for index, question in enumerate(questions):
            if chosen.count(index):
                at, said = chosen.positions(index), chosen.tokens(index)
                features, number = chosen.features([index])[0], self._number[question.document]
                yield self._held(number, at, features, index, said)

    def of_runs(self, length: int) -> Iterator[Held]:
        """All positions of all documents, in runs of a length: what an attacker learns from."""
        for number, document in enumerate(self._cache.documents):
            for start in range(0, document.count - length + 1, length):
                at = torch.arange(start, start + length, device="cpu")
                yield self._held(number, at, self._rows.at([(document, at)])[0])

    @torch.inference_mode()
    def all_codes(self, document: Cached) -> Tensor:
        """(positions, values) float32 of a document, uncompressed, as anybody computes them who has its text."""
        features = self._rows.at([(document, torch.arange(document.count, device="cpu"))])[0]
        width = self._plan.code_dim or self._head.code_dim
        codes: Tensor = self._head.encode(features.to(self._head.input_mean.device))[:, :width].cpu()
        return codes

    @torch.inference_mode()
    def _held(
        self, number: int, at: Tensor, features: Tensor, question: int = -1, said: Sequence[int] = ()
    ) -> Held:
        codes = self._head.encode(features[None].to(self._head.input_mean.device))
        (spec,) = self._specs(positions=codes.shape[1])
        arrived, (size,) = roundtrip(self._codec, codes[..., : spec.shape[1]].cpu(), spec)
        tokens = torch.cat((self.tokens[number][at], torch.tensor(said, dtype=torch.int64, device="cpu")))
        return Held(arrived[0], tokens, at, number, question, size)
