"""An evaluation over cloud documents: every question in every row, answers kept as they come.

The Sharer reads every document once for all rows that need a slice. Its texts are answers like others and are kept as
such, so both relays and routing take them from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.progress import Progress

from fuser.bundle import Bundle
from fuser.evaluate.deadline import Deadline
from fuser.evaluate.dial import Dial
from fuser.evaluate.excerpt import Excerpts
from fuser.evaluate.models import Model
from fuser.evaluate.prediction import Prediction, PredictionLog
from fuser.evaluate.qa import Asker, Before, examples_text, receiver_prompt
from fuser.evaluate.questions import DocumentQuestion
from fuser.evaluate.relay import ANSWER_TOKENS, SharerTexts
from fuser.evaluate.rows import (
    ALL,
    BACKGROUND,
    EXCERPTS,
    READS_FIRST,
    SERVICE_ROWS,
    Extras,
    dialled,
    label,
    missing,
)
from fuser.evaluate.score import marks
from fuser.evaluate.service import ServiceRows
from fuser.evaluate.sharer_cache import SharerCache
from fuser.evaluate.slices import ReceiversOwn, SharersOwn, Slices, Translated
from fuser.evaluate.stranger import strangers

SHOTS = 3
EVERY = 1 << 30  # positions: more than any document has
SURE = 0.5  # routing: mean probability of its tokens from which the Receiver's own answer is taken


class DocumentEvaluation:
    """Questions over documents, answered in rows.

    Args:
        bundle: its learnt prefix, if any, is in every Receiver row, so that none is favoured.
        log: where answers are kept; those that are there are not made again.
        caches: directory for what Sharers read.
        batch: questions at once.
        dials: how excerpts are chosen and sent: rows that have some are made once for each.

    Attributes:
        bundle, log: as given.
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
        dials: Sequence[Dial] = (Dial(),),
    ) -> None:
        self.bundle = bundle
        self._sharer = sharer
        self._receiver = receiver
        self._questions = tuple(questions)
        self.log = log
        self._caches = SharerCache(self._questions, caches)
        self._extras = extras or Extras()
        self._batch = batch
        self._rows = dialled(dials)

    @property
    def labels(self) -> Mapping[str, str]:
        """Known rows and what a table calls them; those with a dial have it behind their name."""
        return {name: label(row, dial) for name, (row, dial) in self._rows.items()}

    @property
    def notes(self) -> dict[str, Any]:
        """What else a report should say about the rows."""
        return {"few-shot": {"examples": len(self._shown)}, "routing": {"sure_from": SURE}}

    def missing(self, row: str) -> str | None:
        """Why a row cannot be run with what is given; None where it can. Raises ValueError for an unknown row."""
        chat = bool(self._sharer.tokenizer.chat_template)
        return missing(row, self.bundle, self._extras, chat, len({q.own for q in self._questions}))

    def run(self, rows: Sequence[str], progress: Progress, deadline: Deadline) -> None:
        """Answer in every row, and in those it reads, what is not answered yet.

        Raises:
            OutOfTime: the deadline passed; answers so far are kept.
        """
        wanted = {*rows, *(READS_FIRST[row] for row in rows if row in READS_FIRST)}
        order = [row for row in (BACKGROUND, *self._rows) if row in wanted]
        for row in sorted(order, key=lambda row: row in READS_FIRST):
            done = self.log.done(row)
            todo = [index for index, question in enumerate(self._questions) if question.id not in done]
            task = progress.add_task(row, total=len(self._questions), completed=len(done))
            if todo:
                deadline.check()
                for batch in self._row(row, todo, progress, deadline):
                    self.log.append(batch)
                    progress.advance(task, len(batch))
                    deadline.check()

    def _row(
        self, name: str, todo: Sequence[int], progress: Progress, deadline: Deadline
    ) -> Iterator[list[Prediction]]:
        row, dial = self._rows.get(name, (name, Dial()))
        if row.removesuffix("-mismatched") in SERVICE_ROWS:
            return self._by_service(name, todo)
        if row in ("sharer", BACKGROUND):
            return self._by_sharer(row, todo)
        bundle, sharer = self.bundle, self._sharer
        if row == "identical" and self._extras.identical is not None:
            bundle, sharer = self._extras.identical, self._receiver
        sliced: tuple[Excerpts | None, float] = None, 0.0
        if row in EXCERPTS:
            cache, reading = self._caches.read(bundle, sharer, progress, deadline)
            selection = dial.select(bundle.config.selection)
            if row in ALL:
                selection = replace(selection, positions=EVERY)
            sliced = Excerpts(bundle, cache, self._questions, selection), reading
        return self._by_batches(name, todo, bundle, *sliced)

    def _by_batches(
        self, name: str, todo: Sequence[int], bundle: Bundle, excerpts: Excerpts | None, reading: float
    ) -> Iterator[list[Prediction]]:
        row, dial = self._rows[name]
        asker = self._asker(row, bundle)
        slices: Slices | None = None
        if excerpts is not None:
            if row in ("own", "own-all"):
                each = bundle.require_translate().receiver_positions
                slices = ReceiversOwn(asker.reading, asker.prefix, excerpts, receiver_positions=each)
            elif row == "sharer-excerpt":
                slices = SharersOwn(excerpts)
            else:
                slices = Translated(bundle, excerpts, dial.plan)
        heard = self._heard(READS_FIRST[row]) if row in READS_FIRST else {}
        before = [self._before(row, index, excerpts, reading, heard) for index in todo]
        for batch in asker.ask([self._questions[i] for i in todo], before, slices):
            said: list[Prediction] = []
            for place, answer in batch.items():
                question, had = self._questions[todo[place]], before[place]
                text, sent, seconds = answer.text, had.bytes + answer.bytes, answer.seconds + had.seconds
                if row == "routing" and answer.confidence < SURE:
                    theirs = heard[question.id]
                    text, sent, seconds = theirs.text, theirs.bytes, seconds + theirs.seconds
                right = marks(text, question.answers)
                said.append(Prediction(name, question.id, text, right, seconds, sent))
            yield said

    def _asker(self, row: str, bundle: Bundle) -> Asker:
        """Who answers: the Receiver behind the learnt prefix, an adapted one without; in one row the Sharer."""
        if row == "sharer-excerpt":
            theirs = self._sharer
            return Asker(theirs.network, theirs.tokenizer, bundle.config.sharer_prompt, None, self._batch)
        tokenizer, style = self._receiver.tokenizer, bundle.config.receiver_prompt
        if row == "lora":  # adapters are trained without the prefix
            return Asker(self._adapted, tokenizer, style, None, self._batch)
        return Asker(self._receiver.network, tokenizer, style, bundle.prefix_kv(None), self._batch)

    def _before(
        self,
        row: str,
        index: int,
        excerpts: Excerpts | None,
        reading: float,
        heard: Mapping[str, Prediction],
    ) -> Before:
        question = self._questions[index]
        if row == "text":
            return Before(question.document, bytes=len(question.document.encode()))
        if row == "few-shot":
            return Before(examples_text(self._shown, self.bundle.config.receiver_prompt))
        if row in ("relay-fair", "relay-paper"):
            text = heard[question.id]
            return Before(text.text, bytes=text.bytes, seconds=text.seconds)
        if excerpts is None:
            return Before()
        if row == "excerpt-text":
            quote = excerpts.quote(index)
            return Before(quote, bytes=len(quote.encode()), seconds=reading)
        source = self._strangers[index] if row == "mismatched" else index
        return Before(slice_of=source, seconds=reading)

    def _by_sharer(self, row: str, todo: Sequence[int]) -> Iterator[list[Prediction]]:
        model = self._sharer
        texts = SharerTexts(model.network, model.tokenizer, self.bundle.config.sharer_prompt)
        make = texts.answers if row == "sharer" else texts.backgrounds
        for batch in make([self._questions[i] for i in todo], self._batch):
            yield [
                Prediction(row, q.id, text, marks(text, q.answers), seconds, len(text.encode()))
                for q, text, seconds in batch
            ]

    def _by_service(self, name: str, todo: Sequence[int]) -> Iterator[list[Prediction]]:
        row, dial = self._rows[name]
        kind = SERVICE_ROWS[row.removesuffix("-mismatched")]
        service = ServiceRows(self._sharer, self._receiver, self.bundle)
        for index in todo:
            question = self._questions[index]
            source = self._questions[self._strangers[index]] if row.endswith("-mismatched") else question
            asked = question.question if row.startswith("shared") else source.question
            text, sent, seconds = service.answer(kind, question, source.document, asked, dial.plan)
            yield [Prediction(name, question.id, text, marks(text, question.answers), seconds, sent)]

    def _heard(self, row: str) -> dict[str, Prediction]:
        return {p.item: p for p in self.log.predictions if p.row == row}

    @cached_property
    def _shown(self) -> tuple[DocumentQuestion, ...]:
        """Training questions of the few-shot row: as many as fit the window before the longest question."""
        shown, style = self._extras.training[:SHOTS], self.bundle.config.receiver_prompt
        longest = max((q.question for q in self._questions), key=lambda text: len(text.encode()))
        prefix = self.bundle.prefix_kv(None)
        room = self._receiver.window - ANSWER_TOKENS - (0 if prefix is None else len(prefix))
        tokenizer = self._receiver.tokenizer
        while shown and len(receiver_prompt(tokenizer, style, examples_text(shown, style), longest)) > room:
            shown = shown[:-1]
        return shown

    @cached_property
    def _adapted(self) -> Any:
        """A Receiver of its own with the adapter in it."""
        assert self._extras.lora is not None
        return self._receiver.adapted(self._extras.lora)

    @cached_property
    def _strangers(self) -> list[int]:
        return strangers(self._questions)
