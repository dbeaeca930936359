"""Questions over cloud documents, in batches: what the Receiver says with this or that before its question.

Every row answers the same questions with the same budget and the same learnt prefix. An answer is the first line of
what is said.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.kv.generate import generate, stop_tokens
from fuser.kv.past import Past
from fuser.lab.evaluate.controls import Noise
from fuser.lab.evaluate.document_rows import ROWS, SURE
from fuser.lab.evaluate.evaluation import Batch, Given, Task
from fuser.lab.evaluate.excerpts import (
    QuestionDrafts,
    QuestionExcerpts,
    ReceiversDrafts,
    ReceiversOwn,
    Slices,
    Translated,
)
from fuser.lab.evaluate.mismatched import mismatched
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.peers import VocabularyProjected, closed_form, training_texts
from fuser.lab.evaluate.plans import registry_of
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.lab.evaluate.rows import Registry, RowAnswer
from fuser.lab.evaluate.score import first_line, marks, marks_of_parts
from fuser.lab.evaluate.sharer_cache import read_documents
from fuser.lab.train.cache import FeatureCache
from fuser.lab.train.reading import KV, FrozenReceiver, replies_to
from fuser.lab.train.sharer_reading import document_sections
from fuser.prompts.prompt import common_prefix, reply_ids, withheld
from fuser.reading import prompt_of
from fuser.receiver import Prefilled, Receiver
from fuser.slice_specs import MAX_WRITTEN, slice_specs
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from kvwire.slice_io import most_bytes, payload_codec

ANSWER_TOKENS = 16
_SHARED = 3  # questions over one document from which prefilling it once outweighs smaller batches


class DocumentEvaluation(Task["Transfer"]):
    """Questions over documents; `given.bundle`'s learnt prefix is in every Receiver row, so that none is favoured.

    answerable: whether the documents answer the questions. kind: of the slices whose plans are judged.
    """

    rows: ClassVar[Registry[Any]] = ROWS
    metric = "exact_match"

    def __init__(
        self,
        given: Given,
        questions: Sequence[DocumentQuestion],
        answerable: bool = True,
        kind: SliceKind = SliceKind.EXCERPT,
    ) -> None:
        lengths = [len(question.document) // 4 for question in questions]
        groups = {question.id: question.own for question in questions}
        super().__init__(given, [question.id for question in questions], lengths, groups)
        self.questions, self.answerable, self.kind = tuple(questions), answerable, kind
        if kind is SliceKind.DRAFT:
            self.transferred = "drafted", "drafted-mismatched"

    @property
    def notes(self) -> dict[str, Any]:
        """As in `Task`."""
        return {"routing": {"sure_from": SURE}}

    def batch(self, picked: Sequence[int]) -> DocumentBatch:
        """As in `Task`."""
        return DocumentBatch(self, picked)

    def mark(self, index: int, text: str, letters: Any = None) -> dict[str, float]:
        """As in `Task`."""
        asked = self.questions[index]
        return marks(text, asked.answers) | (marks_of_parts(text, asked.parts) if asked.parts else {})

    def cap_bytes(self, plan: Plan) -> int:
        """As in `Task`."""
        bundle, sent = self.given.bundle, self.transfer.sent(plan)
        codec = payload_codec(plan, registry_of(bundle).get(plan.codec))
        counts = {sent.count(index) for index in range(len(self.ids))}
        specs = (slice_specs(bundle, self.kind, plan, count, "float32") for count in counts)
        return max(most_bytes(spec, codec) for spec in specs)

    def between(self, bundle: Bundle, sharer: Model) -> Transfer:
        """As in `Task`."""
        return Transfer(self, self.questions, bundle, sharer)

    @cached_property
    def rebound(self) -> Transfer:
        """The bundle over the same documents, of which each has the answer exchanged for another value."""
        questions = [question.rebound for question in self.questions]
        return Transfer(self, questions, self.given.bundle, self.given.sharer)

    @cached_property
    def ridged(self) -> Transfer:
        """The bundle with the closed form in its translate head's place."""
        return Transfer(self, self.questions, self.transfer.closed_form(), self.given.sharer)

    @cached_property
    def mismatched(self) -> list[int]:
        """For each question the one whose slice it gets as a control."""
        return mismatched(self.questions)


class Transfer:
    """A bundle between a Sharer, whose excerpts of questions it sends, and the task's Receiver, which takes them in."""

    def __init__(
        self, task: DocumentEvaluation, questions: Sequence[DocumentQuestion], bundle: Bundle, sharer: Model
    ) -> None:
        self._task, self._questions, self._bundle, self._sharer = task, questions, bundle, sharer
        self.excerpts = lru_cache(maxsize=None)(self._excerpts)
        self.own = lru_cache(maxsize=None)(self._own)
        self.drafted = lru_cache(maxsize=None)(self._drafted)
        self.noise = lru_cache(maxsize=None)(self._noise)
        self.projected = lru_cache(maxsize=None)(self._projected)

    @cached_property
    def receiver(self) -> Receiver:
        """The Receiver of the service."""
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
        """Excerpts as a plan sends them."""
        return Translated(self._bundle, self.excerpts(plan), plan, change)

    def _excerpts(self, plan: Plan) -> QuestionExcerpts:
        """As a plan chooses them."""
        selection = self._bundle.config.selection
        selection = replace(selection, positions=plan.positions or selection.positions)
        return QuestionExcerpts(self._bundle, self._read[0], self._questions, selection, plan.runs, plan.fit)

    def drafts(self, plan: Plan) -> Translated:
        """The Sharer's drafts as a plan sends them."""
        return Translated(self._bundle, self.drafted(plan), plan)

    def _drafted(self, plan: Plan) -> QuestionDrafts:
        """As a plan has them."""
        return QuestionDrafts(self._bundle, self._read[0], self._questions, plan)

    def _noise(self, plan: Plan) -> Noise:
        """Like the codes of all questions by a plan."""
        excerpts, head = self.excerpts(plan), self._bundle.require_translate()
        every = (excerpts.features([index])[0] for index in range(len(self._questions)))
        with torch.inference_mode():
            return Noise.like(torch.cat([head.encode(one.to(head.input_mean.device)) for one in every]))

    def _own(self, plan: Plan) -> ReceiversOwn:
        """The Receiver's own KV at the positions of the excerpts."""
        head = self._bundle.require_translate()
        return ReceiversOwn(*self._reading, self.excerpts(plan), head.receiver_positions)

    def own_drafts(self, answers: Mapping[int, str]) -> ReceiversDrafts:
        """The Receiver's own KV of what it answered to documents' texts, by the index of the question."""
        tokenizer, said = self.receiver.tokenizer, {}
        for index, text in answers.items():
            asked = self._questions[index]
            (prompt,) = self.receiver.begin(receiver_sections(asked.document, asked.question)).prompts
            reply = reply_ids(tokenizer, prompt.rendered, text, int(tokenizer.eos_token_id))
            said[index] = prompt.tokens.ids[prompt.insertion :], reply[: min(len(reply) - 1, MAX_WRITTEN)]
        return ReceiversDrafts(*self._reading, said)

    def _projected(self, plan: Plan) -> VocabularyProjected:
        """The excerpts of a plan as expected embeddings."""
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


class DocumentBatch(Batch):
    """Some of the questions; the words by which rows say how they answer."""

    def __init__(self, task: DocumentEvaluation, picked: Sequence[int]) -> None:
        super().__init__(task, picked)
        self.task = task
        self.questions = [task.questions[index] for index in picked]

    @property
    def others(self) -> list[int]:
        """The questions whose slices these get as a control."""
        return [self.task.mismatched[index] for index in self.picked]

    def ask(
        self, texts: Sequence[str] | None = None, costs: Sequence[RowAnswer] | None = None
    ) -> list[RowAnswer]:
        """Answers with a text where the document would stand. costs: what the texts took; else their bytes alone."""
        texts = [""] * len(self.picked) if texts is None else texts
        costs = [RowAnswer("", bytes=len(text.encode())) for text in texts] if costs is None else costs
        answers = self._answers(self.task.transfer.receiver, texts)
        return [answer.with_cost_of(cost) for answer, cost in zip(answers, costs, strict=True)]

    def behind(
        self, transfer: Transfer, slices: Slices, sources: Sequence[int] | None = None
    ) -> list[RowAnswer]:
        """Answers behind slices, those of the questions `sources` or each one's own."""
        reading = RowAnswer("", transfer.seconds)
        sources = self.picked if sources is None else sources
        answers = self._answers(transfer.receiver, [""] * len(self.picked), slices, sources)
        return [answer.with_cost_of(reading) for answer in answers]

    def behind_own_drafts(self) -> list[RowAnswer]:
        """Answers behind the Receiver's own KV of what it answers to the documents' texts. No Sharer reads for them."""
        transfer, told = self.task.transfer, self.of("text")
        drafts = transfer.own_drafts({i: one.text for i, one in zip(self.picked, told, strict=True)})
        answers = self._answers(transfer.receiver, [""] * len(self.picked), drafts, self.picked)
        return [mine.with_cost_of(replace(one, bytes=0)) for mine, one in zip(answers, told, strict=True)]

    def rebound(self, answers: Sequence[RowAnswer]) -> list[RowAnswer]:
        """Answers over the documents with another value in the answer's place, marked by that one.

        original: a mark of its own; what is right over the original document stands in the answer.
        """
        found = []
        for question, answer in zip(self.questions, answers, strict=True):
            original = marks(answer.text, question.answers)["contains"]
            right = marks(answer.text, question.rebound.answers) | {"original": original}
            found.append(replace(answer, marks=right))
        return found

    @torch.inference_mode()
    def losses(self, plan: Plan) -> list[RowAnswer]:
        """How surprised the Receiver is by the right answers behind slices of the task's kind."""
        transfer, found = self.task.transfer, [RowAnswer("")] * len(self.picked)
        receiver, slices = transfer.receiver, transfer.sent(plan)
        end, texts = int(receiver.tokenizer.eos_token_id), [""] * len(self.picked)
        for places, prefilled, sizes in self._prefilled(receiver, texts, slices, self.picked):
            replies = [self.questions[place].answers[0] for place in places]
            rendered = [prompt.rendered for prompt in prefilled.prompts]
            losses = prefilled.loss(replies_to(receiver.tokenizer, rendered, replies, end)).losses.tolist()
            for place, size, loss in zip(places, sizes, losses, strict=True):
                found[place] = RowAnswer("", bytes=size, marks={"loss": loss})
        return found

    def from_sharer(self) -> list[RowAnswer]:
        """The Sharer's answers to the very prompts that slices are cut from."""
        groups: dict[str, list[int]] = {}
        for place, question in enumerate(self.questions):
            groups.setdefault(question.document, []).append(place)
        many = [group for group in groups.values() if len(group) >= _SHARED]
        few = [place for group in groups.values() if len(group) < _SHARED for place in group]
        found = [RowAnswer("")] * len(self.picked)
        for places in (*many, few) if few else many:
            began = time.perf_counter()
            texts = self._from_sharer([self.questions[place] for place in places])
            each = (time.perf_counter() - began) / len(places)
            for place, text in zip(places, texts, strict=True):
                found[place] = RowAnswer(text, each, len(text.encode()))
        return found

    def _from_sharer(self, questions: Sequence[DocumentQuestion]) -> list[str]:
        sharer, style = self.task.given.sharer, self.task.given.bundle.config.sharer_prompt
        model, tokenizer = sharer.network, sharer.tokenizer
        read = (prompt_of(tokenizer, style, document_sections(q.document, q.question)) for q in questions)
        prompts = [prompt.tokens.ids for prompt in read]
        shared = min(common_prefix(prompts), min(map(len, prompts)) - 1)  # each has a rest to run
        past = Past.empty(1, model.device)
        if shared:
            with torch.inference_mode():
                past.run(model, [prompts[0][:shared]])
        rest, stops = [ids[shared:] for ids in prompts], stop_tokens(model, tokenizer)
        said = generate(model, past.repeat(len(rest)), rest, stops, ANSWER_TOKENS, line_ended(tokenizer))
        return [first_line(tokenizer.decode(ids, skip_special_tokens=True)) for ids in said.tokens]

    @torch.inference_mode()
    def _answers(
        self,
        receiver: Receiver,
        texts: Sequence[str],
        slices: Slices | None = None,
        sources: Sequence[int] = (),
    ) -> list[RowAnswer]:
        found, tokenizer = [RowAnswer("")] * len(texts), receiver.tokenizer
        began = time.perf_counter()
        for places, prefilled, sizes in self._prefilled(receiver, texts, slices, sources):
            said = prefilled.answers(ANSWER_TOKENS, line_ended(tokenizer))
            lines = [first_line(tokenizer.decode(ids, skip_special_tokens=True)) for ids in said.tokens]
            now = time.perf_counter()
            each, began = (now - began) / len(places), now
            for place, line, signals, size in zip(places, lines, said.signals, sizes, strict=True):
                if slices is not None:
                    signals |= slices.certainty(sources[place]).coarse.signals
                found[place] = RowAnswer(line, each, size, math.exp(signals["mean"]), signals=signals)
        return found

    def _prefilled(
        self, receiver: Receiver, texts: Sequence[str], slices: Slices | None, sources: Sequence[int]
    ) -> Iterator[tuple[list[int], Prefilled, list[int]]]:
        """Places of questions with slices of one length, their prompts, and the payload bytes of their slices."""
        prompts = [receiver_sections(t, q.question) for t, q in zip(texts, self.questions, strict=True)]
        counts = [0] * len(prompts) if slices is None else [slices.count(source) for source in sources]
        for count in sorted(set(counts)):
            places = [place for place, own in enumerate(counts) if own == count]
            prefilled = receiver.begin(*(prompts[place] for place in places)).prefill(SliceKind.EXCERPT)
            sizes = [0] * len(places)
            if slices is not None and count:
                taken, sizes = slices.take([sources[place] for place in places])
                prefilled.put(taken)
            yield places, prefilled, sizes


def receiver_sections(text: str, question: str) -> tuple[Section, Section]:
    """A question with `text` where a document stands; an empty one is withheld."""
    document, asked = withheld(question)
    return (Section(Role.DOCUMENT, Visibility.SHARED, text=text) if text else document), asked


def line_ended(tokenizer: Any) -> Callable[[list[int]], bool]:
    """Whether tokens hold a whole first line, so that nothing said after them counts."""
    return lambda ids: "\n" in tokenizer.decode(ids, skip_special_tokens=True).lstrip()
