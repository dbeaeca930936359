"""An evaluation from a bundle and its data to a report; stopped at any time, it goes on when called again."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.progress import Progress

from fuser.atomic import atomic_write
from fuser.bundle.bundle import Bundle
from fuser.lab.data.cases import UNANSWERABLE, Cases
from fuser.lab.data.document import Item
from fuser.lab.data.load import RECORDS, Items, load
from fuser.lab.data.overlap import normalise
from fuser.lab.evaluate.abstain import abstaining
from fuser.lab.evaluate.choice.table import ChoiceGiven, ChoiceTable
from fuser.lab.evaluate.config import EvaluateConfig
from fuser.lab.evaluate.curve import curve
from fuser.lab.evaluate.deadline import Deadline, OutOfTime
from fuser.lab.evaluate.documents import DocumentEvaluation
from fuser.lab.evaluate.fit import unfit, unfit_choice
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.parts import parts
from fuser.lab.evaluate.plans import excerpt_plans, shared_plans
from fuser.lab.evaluate.prediction import PredictionLog
from fuser.lab.evaluate.provenance import file_hash, machine, versions
from fuser.lab.evaluate.questions import DocumentQuestion, digest, draw, draw_choices
from fuser.lab.evaluate.report import summarise
from fuser.lab.evaluate.rows import Extras, Row
from fuser.models.directory import cache_directory
from fuser.prompts.choice import ChoiceItem
from fuser.prompts.prompt import tokenise
from kvwire.plan import Plan

_EVERY_LENGTH = 1 << 40  # the loader drops no document: the draw does, and counts


class Table(Protocol):
    """One kind of task, with its rows.

    rows: those known. notes: plain JSON values about rows, once they have run.
    """

    @property
    def rows(self) -> Sequence[Row]: ...
    @property
    def notes(self) -> Mapping[str, Any]: ...

    def missing(self, kind: str) -> str | None:
        """Why rows of a kind cannot be run with what is given; None where they can. Unknown ones raise ValueError."""
        ...

    def run(self, rows: Sequence[Row], progress: Progress, deadline: Deadline) -> None:
        """Answer what is not answered yet. Raises OutOfTime; answers so far are kept."""
        ...


class Run:
    """One evaluation. Reads the data and draws its questions at once; models are loaded when a row needs them.

    Raises:
        ValueError: bad data (file, line and field are named), an unknown row, no question left, or a model that the
            bundle was not made for.
        BadBundle: the bundle cannot be read.
    """

    def __init__(self, config: EvaluateConfig) -> None:
        self._config = config
        self._bundle = Bundle.load(config.bundle)
        self._identical = None if config.identical is None else Bundle.load(config.identical)
        pair = self._bundle.config
        self._sharer = Model(config.sharer or pair.sharer.name, config.dtype, config.device)
        self._receiver = Model(config.receiver or pair.receiver.name, config.dtype, config.device)
        self._sharer.require(pair.sharer, "the bundle's Sharer")
        self._receiver.require(pair.receiver, "the bundle's Receiver")
        if self._identical is not None:
            self._receiver.require(self._identical.config.sharer, "the Sharer of --identical")
            self._receiver.require(self._identical.config.receiver, "the Receiver of --identical")
        self._work = config.work or cache_directory() / "evaluate"
        self._plans: tuple[Plan, ...] = ()
        self._left_out: Counter[str] = Counter()
        choices, documents = self._load()
        self.task = "choice" if choices else "document"
        self._groups: dict[str, str] = {}
        self._questions: tuple[DocumentQuestion, ...] = ()
        self._table = self._choices(choices) if choices else self._documents(documents)
        kinds = config.rows or dict.fromkeys(row.kind for row in self._table.rows)
        reasons = {kind: self._table.missing(kind) for kind in kinds}
        self.not_run = {kind: reason for kind, reason in reasons.items() if reason is not None}
        runs = reasons.keys() - self.not_run.keys()
        self.rows = [row for row in self._table.rows if row.kind in runs]

    def answer(self, progress: Progress, max_minutes: float = math.inf) -> bool:
        """Answer what is not answered yet; returns whether all is done."""
        try:
            self._table.run(self.rows, progress, Deadline(max_minutes))
        except OutOfTime:
            return False
        return True

    def report(self, command: Sequence[str] = ()) -> dict[str, Any]:
        """All that is answered so far as plain JSON values; `command` is how it was called."""
        config = self._config
        predictions = self._log.predictions
        if UNANSWERABLE in config.cases:
            predictions = abstaining(predictions, self._questions)
        shares = parts(self._questions, self._receiver.tokenizer)
        table = summarise(predictions, self.rows, self._count, self._groups, shares)
        table |= curve(table, self._bundle.config.selection, self._plans)
        done = [row for row in table["rows"] if row["complete"]]
        return {
            "task": self.task,
            "data": {
                "source": config.data,
                "sha256": file_hash(config.data),
                "questions": self._count,
                "questions_sha256": self._digest,
                "documents": len(set(self._groups.values())),
                "limit": config.limit,
                "seed": config.seed,
                "cases": list(config.cases),
            },
            "complete": len(done) == len(self.rows),
            **table,
            "not_run": self.not_run,
            "left_out": dict(self._left_out),
            "notes": dict(self._table.notes),
            "bundle": {
                "path": str(config.bundle),
                "sha256": self._bundle.hash,
                "parameters": self._bundle.parameter_count,
                "sharer": str(self._bundle.config.sharer),
                "receiver": str(self._bundle.config.receiver),
            },
            "batch": config.batch,
            "dtype": config.dtype,
            "device": self._receiver.device.type,
            "predictions": str(self._folder / "predictions.jsonl"),
            "machine": machine(),
            "versions": versions(),
            "command": list(command),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _documents(self, items: Sequence[Item]) -> Table:
        settings = self._config
        if settings.calibration is not None:
            raise ValueError("calibration is for questions with choices: no row over documents is fitted")
        self._plans = excerpt_plans(self._bundle, settings.positions, settings.plans)
        most = _EVERY_LENGTH if settings.cases else settings.max_document_chars
        fits = unfit(self._bundle, self._sharer, self._receiver, most)
        cases = self._cases(items)
        vary = cases or (lambda item: (item,))
        drawn = draw(items, settings.limit, settings.seed, fits, vary, self._left_out)
        self._count, self._questions = len(drawn.questions), drawn.questions
        self._groups = {question.id: question.own for question in drawn.questions}
        asked = ({"item": q.id, "question": q.question, "answers": q.answers} for q in drawn.questions)
        self._settle(drawn.digest, [], asked)
        return DocumentEvaluation(
            self._bundle,
            self._sharer,
            self._receiver,
            drawn.questions,
            self._log,
            self._read,
            Extras(self._identical, UNANSWERABLE not in settings.cases),
            settings.batch,
            self._plans,
        )

    def _cases(self, items: Sequence[Item]) -> Cases | None:
        """The cases asked for; other documents come from the same data, of generated records from a thousand."""
        settings, tokenizer = self._config, self._sharer.tokenizer
        if not settings.cases:
            return None
        if settings.data.startswith(RECORDS):
            items = load(settings.data, "document", None, settings.seed, for_training=False)
        return Cases(
            settings.cases,
            items,
            settings.seed,
            lambda text: len(tokenise(tokenizer, text).ids),
            settings.max_document_chars,
            self._left_out,
        )

    def _choices(self, items: Sequence[ChoiceItem]) -> Table:
        settings = self._config
        if settings.cases or settings.positions:
            raise ValueError("cases and positions are for questions over documents")
        plans = shared_plans(self._bundle, settings.plans)
        fits = unfit_choice(self._bundle, self._sharer, self._receiver, settings.max_document_chars)
        drawn, left_out = draw_choices(items, settings.limit, settings.seed, fits)
        self._left_out.update(left_out)
        self._count = len(drawn)
        if any(item.context for item in drawn):
            self._groups = {item.id: item.context or item.question for item in drawn}
        training: list[ChoiceItem] = []
        if settings.calibration is not None:
            asked = {normalise(item.question) for item in drawn}
            training = [item for item in load(settings.calibration, "choice") if fits(item) is None]
            if all(normalise(item.question) in asked for item in training):
                raise ValueError(f"{settings.calibration} holds no question that is not evaluated too")
        examples = [asdict(item) for item in training]
        asked_items = (
            {"item": i.id, "question": i.question, "choices": i.choices, "answer": i.letter} for i in drawn
        )
        key = digest([asdict(item) for item in drawn])
        self._settle(key, [{"seed": settings.seed}, *examples], asked_items)
        others = self._identical, settings.batch, settings.seed, plans
        given = ChoiceGiven(drawn, training, *others)
        return ChoiceTable(self._bundle, self._sharer, self._receiver, given, self._log, self._read)

    def _settle(
        self, questions: str, training: list[dict[str, Any]], asked: Iterable[Mapping[str, Any]]
    ) -> None:
        """Name the folder after what decides the answers, open the log in it, and write what its items ask."""
        config = self._config
        key = [
            self._bundle.hash,
            questions,
            digest(training),
            None if self._identical is None else self._identical.hash,
        ]
        made: list[str] = [config.dtype] if config.dtype != "float32" else []
        made += [device] if (device := self._receiver.device.type) != "cpu" else []  # its last bits differ
        key += made
        self._read = self._work / "-".join(["read", *made])
        self._digest = questions
        self._folder = self._work / digest(key)[:16]
        self._log = PredictionLog(self._folder / "predictions.jsonl")
        with atomic_write(self._folder / "questions.jsonl") as partial:
            lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in asked)
            partial.write_text("".join(lines), encoding="utf-8")

    def _load(self) -> tuple[list[ChoiceItem], list[Item]]:
        """All of the data: questions with choices, or questions over documents; one of both is empty."""
        config = self._config
        items: Items
        if config.task == "choice":
            items = load(config.data, "choice", for_training=False, left_out=self._left_out)
        else:
            items = load(
                config.data,
                config.task,
                config.limit if config.data.startswith(RECORDS) else None,
                config.seed,
                for_training=False,
                max_document_chars=_EVERY_LENGTH,
                left_out=self._left_out,
            )
        choices = [item for item in items if isinstance(item, ChoiceItem)]
        documents = [item for item in items if isinstance(item, Item)]
        if not choices and not documents:
            raise ValueError(f"{config.data} holds instructions: nothing there can be marked right or wrong")
        return choices, documents
