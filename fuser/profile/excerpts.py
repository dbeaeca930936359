"""Excerpts in a profile: cut once from what the Sharer read, then sent by each plan as the service would"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from pathlib import Path

import torch
from rich.progress import Progress

from fuser.bundle import Bundle
from fuser.evaluate.deadline import Deadline
from fuser.evaluate.excerpt import QuestionExcerpts
from fuser.evaluate.mismatched import mismatched
from fuser.evaluate.models import Model
from fuser.evaluate.plans import registry_of
from fuser.evaluate.prediction import Prediction
from fuser.evaluate.qa import Asker, Before
from fuser.evaluate.questions import DocumentQuestion
from fuser.evaluate.score import marks
from fuser.evaluate.sharer_cache import SharerCache
from fuser.evaluate.slices import Translated
from fuser.profile.rows import Row, Screened
from fuser.prompt import withheld
from fuser.receiver import Receiver
from fuser.slice_specs import slice_specs
from fuser.train.cache import FeatureCache
from fuser.train.reading import replies_to
from kvwire.payload import most_bytes, payload_codec
from kvwire.plan import Plan
from kvwire.segment import SliceKind


class ExcerptProfile:
    """A `fuser.profile.rows.Profiled` of questions over cloud documents.

    Args:
        caches: directory for what the Sharer reads.
        batch: questions at once.

    Raises:
        ValueError: all questions are over one document, so that none can be mismatched.
    """

    kind = SliceKind.EXCERPT
    metric = "exact_match"

    def __init__(
        self,
        bundle: Bundle,
        sharer: Model,
        receiver: Model,
        questions: Sequence[DocumentQuestion],
        caches: Path,
        batch: int,
    ) -> None:
        self._bundle, self._sharer, self._receiver = bundle, sharer, receiver
        self._asked = tuple(questions)
        self._mismatched = mismatched(self._asked)
        self._caches = SharerCache(self._asked, caches)
        self._batch = batch
        self._cache: FeatureCache | None = None

    @property
    def questions(self) -> list[str]:
        """As in `Profiled`."""
        return [question.id for question in self._asked]

    @property
    def groups(self) -> dict[str, str]:
        """As in `Profiled`."""
        return {question.id: question.document for question in self._asked}

    def read(self, progress: Progress, deadline: Deadline) -> None:
        """As in `Profiled`."""
        self._cache, _ = self._caches.read(self._bundle, self._sharer, progress, deadline)

    def screen(self, plan: Plan, count: int) -> Screened:
        """As in `Profiled`."""
        sent, tokenizer = Translated(self._bundle, self._excerpts(plan), plan), self._receiver.tokenizer
        end = int(tokenizer.eos_token_id)
        picked = range(min(count, len(self._asked)))
        lengths = [len(self._asked[i].question) + len(self._asked[i].answers[0]) for i in picked]
        order = sorted(picked, key=lambda i: (sent.count(i), lengths[i]))
        loss = size = 0.0
        with torch.inference_mode():
            for _, group in groupby(order, key=sent.count):  # slices of one batch have as many positions
                alike = list(group)
                for start in range(0, len(alike), self._batch):
                    some = alike[start : start + self._batch]
                    taken, sizes = sent.take(some)
                    asked = [self._asked[i] for i in some]
                    draft = self._service.begin(*(withheld(q.question) for q in asked)).prefill(self.kind)
                    draft.put(taken)
                    rendered, answers = [p.rendered for p in draft.prompts], [q.answers[0] for q in asked]
                    outcome = draft.loss(replies_to(tokenizer, rendered, answers, end))
                    loss += float(outcome.loss) * len(some)
                    size += sum(sizes)
        return Screened(plan, loss / len(picked), size / len(picked), len(picked))

    def rivals(self, plans: Sequence[Plan]) -> list[Row]:
        """The Receiver alone, the whole text, and the text of what the plans send."""
        own = self._bundle.config.selection.positions
        quoted = [
            Row("quote", Plan(codec="raw", positions=count))
            for count in sorted({plan.positions or own for plan in plans})
        ]
        return [Row("receiver"), Row("text"), *quoted, *(row.control for row in quoted)]

    def answers(self, row: Row, todo: Sequence[int]) -> Iterator[list[Prediction]]:
        """As in `Profiled`."""
        excerpts = None if row.plan is None else self._excerpts(row.plan)
        sent = None
        if row.source == "plan" and row.plan is not None and excerpts is not None:
            sent = Translated(self._bundle, excerpts, row.plan)
        before = [self._before(row, self._mismatched[i] if row.mismatched else i, excerpts) for i in todo]
        for batch in self._asker.ask([self._asked[i] for i in todo], before, sent):
            found: list[Prediction] = []
            for place, said in batch.items():
                question = self._asked[todo[place]]
                right, size = marks(said.text, question.answers), before[place].bytes + said.bytes
                found.append(Prediction(row.name, question.id, said.text, right, said.seconds, size))
            yield found

    def cap_bytes(self, plan: Plan) -> int:
        """As in `Profiled`."""
        codec = payload_codec(plan, registry_of(self._bundle).get(plan.codec))
        excerpts = self._excerpts(plan)
        counts = {excerpts.count(index) for index in range(len(self._asked))}
        specs = (slice_specs(self._bundle, self.kind, plan, count, "float32") for count in counts)
        return max(most_bytes(spec, codec) for spec in specs)

    def _before(self, row: Row, source: int, excerpts: QuestionExcerpts | None) -> Before:
        """`source`: the question whose slice or text it is."""
        if row.source == "plan":
            return Before(slice_of=source)
        text = ""
        if row.source == "text":
            text = self._asked[source].document
        elif row.source == "quote" and excerpts is not None:
            text = excerpts.quote(source)
        return Before(text, bytes=len(text.encode()))

    def _excerpts(self, plan: Plan) -> QuestionExcerpts:
        if self._cache is None:
            raise RuntimeError("the Sharer has read nothing yet: call read first")
        own = self._bundle.config.selection
        selection = replace(own, positions=plan.positions or own.positions)
        return QuestionExcerpts(self._bundle, self._cache, self._asked, selection)

    @cached_property
    def _service(self) -> Receiver:
        return Receiver(self._receiver.network, self._receiver.tokenizer, self._bundle)

    @cached_property
    def _asker(self) -> Asker:
        return Asker(self._service, self._batch)
