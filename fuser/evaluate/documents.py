"""An evaluation over cloud documents: every question in every row, answers kept as they come.

The Sharer reads every document once for all rows that need a slice. Its texts are answers like others and are kept as
such, so relay and routing take them from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.progress import Progress

from fuser.bundle import Bundle
from fuser.evaluate.deadline import Deadline
from fuser.evaluate.excerpt import QuestionExcerpts
from fuser.evaluate.mismatched import mismatched
from fuser.evaluate.models import Model
from fuser.evaluate.plans import selected_by
from fuser.evaluate.prediction import Prediction, PredictionLog
from fuser.evaluate.qa import Asker, Before
from fuser.evaluate.questions import DocumentQuestion
from fuser.evaluate.relay import SharerTexts
from fuser.evaluate.rows import DOCUMENT_ROWS, EXCERPTS, READ_SHARER, Extras, Row, missing, rows_of
from fuser.evaluate.score import marks
from fuser.evaluate.sharer_cache import SharerCache
from fuser.evaluate.slices import ReceiversOwn, Slices, Translated
from fuser.prompt import withheld
from fuser.receiver import Receiver
from fuser.train.reading import FrozenReceiver
from kvwire.plan import WHOLE, Plan

SURE = 0.5  # routing: mean probability of its tokens from which the Receiver's own answer is taken


class DocumentEvaluation:
    """Questions over documents, answered in rows.

    Args:
        bundle: its learnt prefix, if any, is in every Receiver row, so that none is favoured.
        log: where answers are kept; those that are there are not made again.
        caches: directory for what Sharers read.
        batch: questions at once.
        plans: how excerpts are cut and sent: rows that have one are made once for each.

    Attributes:
        bundle, log: as given. rows: those known.
    """

    def __init__(
        self,
        bundle: Bundle,
        sharer: Model,
        receiver: Model,
        questions: Sequence[DocumentQuestion],
        log: PredictionLog,
        caches: Path,
        extras: Extras | None = None,
        batch: int = 16,
        plans: Sequence[Plan] = (WHOLE,),
    ) -> None:
        self.bundle = bundle
        self._sharer = sharer
        self._receiver = receiver
        self._questions = tuple(questions)
        self.log = log
        self._caches = SharerCache(self._questions, caches)
        self._extras = extras or Extras()
        self._batch = batch
        self.rows = rows_of(DOCUMENT_ROWS, plans)

    @property
    def notes(self) -> dict[str, Any]:
        """What else a report should say about the rows."""
        return {"routing": {"sure_from": SURE}}

    def missing(self, kind: str) -> str | None:
        """Why rows of a kind cannot be run with what is given; None where they can.

        Raises:
            ValueError: an unknown kind.
        """
        return missing(kind, self.bundle, self._extras, len({q.own for q in self._questions}))

    def run(self, rows: Sequence[Row], progress: Progress, deadline: Deadline) -> None:
        """Answer in every row, and in those it reads, what is not answered yet.

        Raises:
            OutOfTime: the deadline passed; answers so far are kept.
        """
        wanted = {*rows, *(Row("sharer") for row in rows if row.kind in READ_SHARER)}
        order = [row for row in self.rows if row in wanted]
        for row in sorted(order, key=lambda row: row.kind in READ_SHARER):
            done = self.log.done(row.name)
            todo = [index for index, question in enumerate(self._questions) if question.id not in done]
            task = progress.add_task(row.name, total=len(self._questions), completed=len(done))
            if todo:
                deadline.check()
                for batch in self._row(row, todo, progress, deadline):
                    self.log.append(batch)
                    progress.advance(task, len(batch))
                    deadline.check()

    def _row(
        self, row: Row, todo: Sequence[int], progress: Progress, deadline: Deadline
    ) -> Iterator[list[Prediction]]:
        if row.kind == "sharer":
            return self._by_sharer(todo)
        bundle, sharer = self.bundle, self._sharer
        if row.kind == "identical" and self._extras.identical is not None:
            bundle, sharer = self._extras.identical, self._receiver
        sliced: tuple[QuestionExcerpts | None, float] = None, 0.0
        if row.kind in EXCERPTS:
            cache, reading = self._caches.read(bundle, sharer, progress, deadline)
            selection = selected_by(row.plan, bundle.config.selection)
            sliced = QuestionExcerpts(bundle, cache, self._questions, selection), reading
        return self._by_batches(row, todo, bundle, *sliced)

    def _by_batches(
        self, row: Row, todo: Sequence[int], bundle: Bundle, excerpts: QuestionExcerpts | None, reading: float
    ) -> Iterator[list[Prediction]]:
        kind = row.kind
        network, tokenizer = self._receiver.network, self._receiver.tokenizer
        receiver = Receiver(network, tokenizer, bundle)
        asker = Asker(receiver, self._batch)
        slices: Slices | None = None
        if excerpts is not None:
            if kind == "own":
                each = bundle.require_translate().receiver_positions
                frozen = FrozenReceiver(network, tokenizer, bundle.config.receiver_prompt, lead="")
                past = receiver.begin(withheld("")).prefill(None).past.layers
                slices = ReceiversOwn(frozen, past, excerpts, receiver_positions=each)
            else:
                slices = Translated(bundle, excerpts, row.plan)
        heard = {p.item: p for p in self.log.predictions if p.row == "sharer"} if kind in READ_SHARER else {}
        before = [self._before(kind, index, excerpts, reading, heard) for index in todo]
        for batch in asker.ask([self._questions[i] for i in todo], before, slices):
            said: list[Prediction] = []
            for place, answer in batch.items():
                question, had = self._questions[todo[place]], before[place]
                text, sent, seconds = answer.text, had.bytes + answer.bytes, answer.seconds + had.seconds
                if kind == "routing" and answer.confidence < SURE:
                    theirs = heard[question.id]
                    text, sent, seconds = theirs.text, theirs.bytes, seconds + theirs.seconds
                right = marks(text, question.answers)
                said.append(Prediction(row.name, question.id, text, right, seconds, sent))
            yield said

    def _before(
        self,
        kind: str,
        index: int,
        excerpts: QuestionExcerpts | None,
        reading: float,
        heard: Mapping[str, Prediction],
    ) -> Before:
        question = self._questions[index]
        if kind == "text":
            return Before(question.document, bytes=len(question.document.encode()))
        if kind == "relay-fair":
            text = heard[question.id]
            return Before(text.text, bytes=text.bytes, seconds=text.seconds)
        if excerpts is None:
            return Before()
        if kind == "excerpt-text":
            quote = excerpts.quote(index)
            return Before(quote, bytes=len(quote.encode()), seconds=reading)
        source = self._mismatched[index] if kind == "mismatched" else index
        return Before(slice_of=source, seconds=reading)

    def _by_sharer(self, todo: Sequence[int]) -> Iterator[list[Prediction]]:
        model = self._sharer
        texts = SharerTexts(model.network, model.tokenizer, self.bundle.config.sharer_prompt)
        for batch in texts.answers([self._questions[i] for i in todo], self._batch):
            yield [
                Prediction("sharer", q.id, text, marks(text, q.answers), seconds, len(text.encode()))
                for q, text, seconds in batch
            ]

    @cached_property
    def _mismatched(self) -> list[int]:
        return mismatched(self._questions)
