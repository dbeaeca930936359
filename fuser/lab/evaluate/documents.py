"""Questions over cloud documents, in batches: what the Receiver says with this or that before its question.

Every row answers the same questions with the same budget and the same learnt prefix. An answer is the first line of
what is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.kv.generate import generate, stop_tokens
from fuser.kv.past import Past
from fuser.lab.evaluate.evaluation import Batch, Given, Task
from fuser.lab.evaluate.excerpts import Slices
from fuser.lab.evaluate.mismatched import mismatched
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.plans import registry_of
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.lab.evaluate.rows import Answers, Registry, RowAnswer
from fuser.lab.evaluate.score import first_line, marks, marks_of_parts
from fuser.lab.evaluate.transfer import Transfer
from fuser.lab.train.reading import replies_to
from fuser.lab.train.sharer_reading import document_sections
from fuser.prompts.prompt import common_prefix, withheld
from fuser.reading import prompt_of
from fuser.receiver import Prefilled, Receiver
from fuser.slice_specs import slice_specs
from kvwire.plan import WHOLE, Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from kvwire.slice_io import most_bytes, payload_codec

ANSWER_TOKENS = 16
EVERYWHERE = replace(WHOLE, positions=1 << 20)
"""A plan of all positions of a document."""
_SHARED = 3  # questions over one document from which prefilling it once outweighs smaller batches

ROWS: Registry[DocumentBatch] = Registry("over documents")


def _lacks_excerpts(task: DocumentEvaluation) -> str | None:
    kinds = task.given.bundle.kinds
    return None if SliceKind.EXCERPT in kinds else f"the bundle makes no {SliceKind.EXCERPT} slices"


def _lacks_another(task: DocumentEvaluation) -> str | None:
    if not task.answerable:
        return "every slice is one of a document that does not answer the question"
    if len({question.own for question in task.questions}) < 2:
        return "needs questions over at least two documents: a higher limit"
    return _lacks_excerpts(task)


def _lacks_exchanged(task: DocumentEvaluation) -> str | None:
    if not task.answerable or not all(question.other for question in task.questions):
        return "needs documents in which the answer can be exchanged for another value: records:SPLIT"
    return _lacks_excerpts(task)


def _lacks_identical(task: DocumentEvaluation) -> str | None:
    if task.given.identical is None:
        return "needs a bundle whose Sharer is the Receiver's own model: the key identical"
    if SliceKind.EXCERPT not in task.given.identical.kinds:
        return f"the bundle of the key identical makes no {SliceKind.EXCERPT} slices"
    return None


class DocumentEvaluation(Task[Transfer]):
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

    def batch(self, picked: Sequence[int]) -> DocumentBatch:
        return DocumentBatch(self, picked)

    def mark(self, index: int, text: str, letters: Any = None) -> dict[str, float]:
        asked = self.questions[index]
        return marks(text, asked.answers) | (marks_of_parts(text, asked.parts) if asked.parts else {})

    def cap_bytes(self, plan: Plan) -> int:
        bundle, sent = self.given.bundle, self.transfer.sent(plan)
        codec = payload_codec(plan, registry_of(bundle).get(plan.codec))
        counts = {sent.count(index) for index in range(len(self.ids))}
        specs = (slice_specs(bundle, self.kind, plan, count, "float32") for count in counts)
        return max(most_bytes(spec, codec) for spec in specs)

    def between(self, bundle: Bundle, sharer: Model) -> Transfer:
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

    def fused(
        self,
        plan: Plan,
        sources: Sequence[int] | None = None,
        change: Callable[[Tensor], Tensor] | None = None,
        of: Transfer | None = None,
    ) -> list[RowAnswer]:
        """Answers behind excerpts of the bundle or of another one, changed by a control."""
        transfer = of or self.task.transfer
        return self.behind(transfer, transfer.slices(plan, change), sources)

    def quoted(self, plan: Plan, sources: Sequence[int]) -> list[RowAnswer]:
        """Answers with the text of excerpts where the document would stand."""
        excerpts, seconds = self.task.transfer.excerpts(plan), self.task.transfer.seconds
        quotes = [excerpts.quote(source) for source in sources]
        return self.ask(quotes, [RowAnswer("", seconds, len(quote.encode())) for quote in quotes])

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
                found[place] = RowAnswer(line, each, size, signals=signals)
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

    # The rows; docs/evaluation.md says what each is for.

    @ROWS.row("receiver", "Receiver alone (floor)")
    def _receiver(self, plan: Plan) -> Answers:
        return self.ask()

    @ROWS.row("text", "Receiver given the document's text (ceiling)")
    def _text(self, plan: Plan) -> Answers:
        return self.ask([question.document for question in self.questions])

    @ROWS.row("excerpt-text", "Receiver given the excerpt's text", needs=_lacks_excerpts, by="positions")
    def _excerpt_text(self, plan: Plan) -> Answers:
        return self.quoted(plan, self.picked)

    @ROWS.row(
        "mismatched-text",
        "Receiver given the text of another document's excerpt",
        needs=_lacks_another,
        control="excerpt-text",
        by="positions",
        on_request=True,
    )
    def _mismatched_text(self, plan: Plan) -> Answers:
        return self.quoted(plan, self.others)

    @ROWS.row("own", "Receiver's own KV, the excerpt's positions", needs=_lacks_excerpts, by="positions")
    def _own(self, plan: Plan) -> Answers:
        return self.behind(self.task.transfer, self.task.transfer.own(plan))

    @ROWS.row("sharer", "Sharer's own answer")
    def _sharer(self, plan: Plan) -> Answers:
        return self.from_sharer()

    @ROWS.row("fused", "fused", needs=_lacks_excerpts, by="plan")
    def _fused(self, plan: Plan) -> Answers:
        return self.fused(plan)

    @ROWS.row(
        "mismatched", "fused, slice of another document", needs=_lacks_another, control="fused", by="plan"
    )
    def _mismatched(self, plan: Plan) -> Answers:
        return self.fused(plan, self.others)

    @ROWS.row(
        "wrong-binding", "fused, the answer exchanged in the document", needs=_lacks_exchanged, by="plan"
    )
    def _wrong_binding(self, plan: Plan) -> Answers:
        return self.rebound(self.fused(plan, of=self.task.rebound))

    @ROWS.row(
        "wrong-binding-text",
        "Receiver given the text of that document",
        needs=_lacks_exchanged,
        on_request=True,
    )
    def _wrong_binding_text(self, plan: Plan) -> Answers:
        return self.rebound(self.ask([question.rebound.document for question in self.questions]))

    @ROWS.row("zeroed", "fused, a slice of zeros", needs=_lacks_excerpts, control="fused", by="plan")
    def _zeroed(self, plan: Plan) -> Answers:
        return self.fused(plan, change=torch.zeros_like)

    @ROWS.row("random", "fused, a random slice", needs=_lacks_another, control="fused", by="plan")
    def _random(self, plan: Plan) -> Answers:
        noise = partial(self.task.transfer.noise(plan).in_place_of, seed=self.picked[0])
        return self.fused(plan, change=noise)

    @ROWS.row("drafted", "fused, the Sharer's draft", needs=_lacks_excerpts, by="draft", on_request=True)
    def _drafted(self, plan: Plan) -> Answers:
        return self.behind(self.task.transfer, self.task.transfer.drafts(plan))

    @ROWS.row(
        "drafted-mismatched",
        "fused, the draft of another document",
        needs=_lacks_another,
        control="drafted",
        by="draft",
        on_request=True,
    )
    def _drafted_mismatched(self, plan: Plan) -> Answers:
        return self.behind(self.task.transfer, self.task.transfer.drafts(plan), self.others)

    @ROWS.row("drafted-text", "Receiver given the draft's text", needs=_lacks_excerpts, on_request=True)
    def _drafted_text(self, plan: Plan) -> Answers:
        written = self.task.transfer.drafted(plan).written
        return self.ask([written(index) for index in self.picked])

    @ROWS.row("ridge", "closed form alone, all positions", needs=_lacks_excerpts, on_request=True)
    def _ridge(self, plan: Plan) -> Answers:
        return self.fused(EVERYWHERE, of=self.task.ridged)

    @ROWS.row("avp", "AVP: expected embeddings", needs=_lacks_excerpts, by="positions", on_request=True)
    def _avp(self, plan: Plan) -> Answers:
        return self.behind(self.task.transfer, self.task.transfer.projected(plan))

    @ROWS.row("identical", "fused, Identical Sharer", needs=_lacks_identical)
    def _identical(self, plan: Plan) -> Answers:
        return self.fused(plan, of=self.task.identical)


def receiver_sections(text: str, question: str) -> tuple[Section, Section]:
    """A question with `text` where a document stands; an empty one is withheld."""
    document, asked = withheld(question)
    return (Section(Role.DOCUMENT, Visibility.SHARED, text=text) if text else document), asked


def line_ended(tokenizer: Any) -> Callable[[list[int]], bool]:
    """Whether tokens hold a whole first line, so that nothing said after them counts."""
    return lambda ids: "\n" in tokenizer.decode(ids, skip_special_tokens=True).lstrip()
