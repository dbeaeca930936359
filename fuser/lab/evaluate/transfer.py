"""A bundle between a Sharer and a Receiver over cloud documents: all that may stand before a question, by plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.lab.evaluate.controls import Noise
from fuser.lab.evaluate.evaluation import Task
from fuser.lab.evaluate.excerpts import QuestionSlices, ReceiversOwn, Translated
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.peers import VocabularyProjected, closed_form, training_texts
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.lab.evaluate.sharer_cache import read_documents
from fuser.lab.train.cache import FeatureCache
from fuser.lab.train.reading import KV, FrozenReceiver
from fuser.prompts.prompt import withheld
from fuser.receiver import Receiver
from kvwire.plan import Plan
from kvwire.segment import SliceKind


class Transfer:
    """A bundle between a Sharer, whose excerpts of questions it sends, and the task's Receiver, which takes them in."""

    def __init__(
        self, task: Task[Any], questions: Sequence[DocumentQuestion], bundle: Bundle, sharer: Model
    ) -> None:
        self._task, self._questions, self._bundle, self._sharer = task, questions, bundle, sharer
        self.excerpts = lru_cache(maxsize=None)(self._excerpts)
        self.own = lru_cache(maxsize=None)(self._own)
        self.drafted = lru_cache(maxsize=None)(self._drafted)
        self.noise = lru_cache(maxsize=None)(self._noise)
        self.projected = lru_cache(maxsize=None)(self._projected)

    @cached_property
    def receiver(self) -> Receiver:
        model = self._task.given.receiver
        return Receiver(model.network, model.tokenizer, self._bundle)

    @property
    def seconds(self) -> float:
        """Of the Sharer's reading, a question."""
        return self._read[1]

    def sent(self, plan: Plan) -> Translated:
        """Slices of the task's kind as a plan sends them."""
        return self.drafts(plan) if self._task.kind is SliceKind.DRAFT else self.slices(plan)

    def slices(self, plan: Plan, change: Callable[[Tensor], Tensor] | None = None) -> Translated:
        return Translated(self._bundle, self.excerpts(plan), plan, change)

    def _excerpts(self, plan: Plan) -> QuestionSlices:
        return QuestionSlices(self._bundle, self._read[0], self._questions, SliceKind.EXCERPT, plan)

    def drafts(self, plan: Plan) -> Translated:
        return Translated(self._bundle, self.drafted(plan), plan)

    def _drafted(self, plan: Plan) -> QuestionSlices:
        return QuestionSlices(self._bundle, self._read[0], self._questions, SliceKind.DRAFT, plan)

    def _noise(self, plan: Plan) -> Noise:
        excerpts, head = self.excerpts(plan), self._bundle.require_translate()
        every = (excerpts.features([index])[0] for index in range(len(self._questions)))
        with torch.inference_mode():
            return Noise.like(torch.cat([head.encode(one.to(head.input_mean.device)) for one in every]))

    def _own(self, plan: Plan) -> ReceiversOwn:
        head = self._bundle.require_translate()
        return ReceiversOwn(*self._reading, self.excerpts(plan), head.receiver_positions)

    def _projected(self, plan: Plan) -> VocabularyProjected:
        style, sharer = self._bundle.config.sharer_prompt, self._sharer
        return VocabularyProjected(sharer, style, self._questions, self.excerpts(plan), *self._reading)

    def closed_form(self) -> Bundle:
        """The bundle with its translate head as it is before any training on answers."""
        cache, _ = self._caching(training_texts())
        return closed_form(self._bundle, cache, *self._reading)

    @property
    def _reading(self) -> tuple[FrozenReceiver, KV]:
        """The Receiver, and what it has read before a document."""
        model, style = self._task.given.receiver, self._bundle.config.receiver_prompt
        reading = FrozenReceiver(model.network, model.tokenizer, style, lead="")
        return reading, self.receiver.begin(withheld("")).prefill(None).past.layers

    @cached_property
    def _read(self) -> tuple[FeatureCache, float]:
        return self._caching(self._questions, self._task.given.drafts)

    def _caching(
        self, questions: Sequence[DocumentQuestion], drafts: bool = False
    ) -> tuple[FeatureCache, float]:
        task = self._task
        root, progress, deadline = task.given.work, task.progress, task.deadline
        return read_documents(questions, self._bundle, self._sharer, root, progress, deadline, drafts)
