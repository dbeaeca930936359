"""An evaluation from a bundle and its data to a report; stopped at any time, it continues when called again."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.progress import Progress

from fuser.atomic import atomic_write
from fuser.config import BadConfig
from fuser.lab.data.cases import UNANSWERABLE, Cases
from fuser.lab.data.document import Item
from fuser.lab.data.load import GENERATED, load
from fuser.lab.data.overlap import normalise
from fuser.lab.evaluate.choices import ChoiceTask
from fuser.lab.evaluate.confidence import ROWS, judged, worth
from fuser.lab.evaluate.documents import DocumentEvaluation
from fuser.lab.evaluate.evaluation import OutOfTime, Task, TimeLimit, answer
from fuser.lab.evaluate.fit import unfit, unfit_choice
from fuser.lab.evaluate.plans import draft_plans, excerpt_plans, shared_plans
from fuser.lab.evaluate.prediction import PredictionLog
from fuser.lab.evaluate.provenance import METHOD, data_of, provenance
from fuser.lab.evaluate.questions import digest, draw, draw_choices, parts, questions_digest, read_questions
from fuser.lab.evaluate.report import summarise
from fuser.lab.evaluate.score import abstaining
from fuser.lab.evaluate.settings import EvaluateConfig, Setup, made_in, plans_of
from fuser.prompts.choice import ChoiceItem
from fuser.prompts.prompt import tokenise
from kvwire.errors import InvalidRequest, Unsupported
from kvwire.plan import Plan

_EVERY_LENGTH = 1 << 40  # the loader drops no document: the draw does, and counts


class Run:
    """One evaluation. Reads the data and draws its questions at once; models are loaded when a row needs them.

    Raises:
        ValueError: bad data (file, line and field are named), an unknown row, a key that means nothing for this data,
            no question left, or a model that the bundle was not made for.
        BadBundle: the bundle cannot be read.
    """

    def __init__(self, bundle: Path, config: EvaluateConfig, setup: Setup) -> None:
        self._config, self._path = config, bundle
        given = setup.given(bundle, "evaluate", config.batch, config.identical)
        self._given = replace(given, drafts=config.writes)
        self._left_out: Counter[str] = Counter()
        options = {"max_document_chars": _EVERY_LENGTH, "left_out": self._left_out}
        found = read_questions(
            config.data, config.task, self._limit, config.seed, for_training=False, **options
        )
        choices, documents = found
        if config.drafts and not config.writes:
            raise ValueError("drafts: no row that is asked for has drafts")
        self._task, plans = self._choices(choices) if choices else self._documents(documents)
        rows = self._task.rows
        names = config.rows or [row.name for row in rows if not row.on_request]
        reasons = {name: rows[name].needs(self._task) for name in names}
        self.not_run = {name: reason for name, reason in reasons.items() if reason is not None}
        with _of_plans("drafts"):
            drafts = draft_plans(given.bundle, plans_of(config.drafts)) if config.writes else ()
        self.lines = rows.lines([name for name in reasons if name not in self.not_run], plans, drafts)

    def answer(self, progress: Progress, max_minutes: float = math.inf) -> bool:
        """Answer what is not answered yet; returns whether all is done."""
        try:
            answer(self._task, self.lines, self._log, progress, TimeLimit(max_minutes))
        except OutOfTime:
            return False
        return True

    def report(self, command: Sequence[str] = ()) -> dict[str, Any]:
        """All that is answered so far as plain JSON values; `command` is how it was called."""
        config, task, given = self._config, self._task, self._given
        bundle, predictions, shares = given.bundle, self._log.predictions, {}
        groups: Mapping[str, str] = task.groups
        if isinstance(task, DocumentEvaluation):
            shares = parts(task.questions, given.receiver.tokenizer)
            if not task.answerable:
                predictions = abstaining(predictions, task.questions)
        elif isinstance(task, ChoiceTask) and not any(item.context for item in task.items):
            groups = {}
        table = summarise(predictions, self.lines, task.rows, len(task.ids), groups, shares)
        done = [row for row in table["rows"] if row["complete"]]
        confidence = self._confidence() if isinstance(task, DocumentEvaluation) else {}
        return {
            "task": "document" if isinstance(task, DocumentEvaluation) else "choice",
            "data": {
                **data_of(config.data, self._digest, len(task.ids), groups),
                "limit": self._limit,
                "seed": config.seed,
                "cases": list(config.cases),
            },
            "complete": len(done) == len(self.lines),
            **table,
            "confidence": confidence,
            "not_run": self.not_run,
            "left_out": dict(self._left_out),
            "notes": dict(task.notes),
            "bundle": {
                "path": str(self._path),
                "sha256": bundle.hash,
                "parameters": bundle.parameter_count,
                "sharer": str(bundle.config.sharer),
                "receiver": str(bundle.config.receiver),
            },
            "batch": config.batch,
            "predictions": str(self._log.path),
            "command": list(command),
            **provenance(given.receiver),
        }

    def _confidence(self) -> dict[str, Any]:
        """By line what the bundle's confidences are worth over all documents, those without an answer too."""
        pair, task = self._given.bundle.config, self._task
        assert isinstance(task, DocumentEvaluation)
        without = {q.id for q in task.questions if not task.answerable or q.answers == (pair.abstain,)}
        found = {}
        for kind, rows in ROWS.items():
            for line in (line for line in self.lines if line.row.name == rows[0] and kind in pair.confidence):
                both = [p for p in self._log.predictions if p.row in rows and p.plan == line.key[1]]
                if answers := judged(both, kind, pair.abstain, without):
                    found[line.name] = worth(answers, pair.confidence[kind])
        return found

    def _documents(self, items: Sequence[Item]) -> tuple[Task[Any], Sequence[Plan]]:
        config, given = self._config, self._given
        if config.calibration:
            raise ValueError("calibration is for questions with choices: no row over documents is fitted")
        with _of_plans():
            plans = excerpt_plans(given.bundle, config.positions, plans_of(config.plans))
        fits = unfit(given, _EVERY_LENGTH if config.cases else config.max_document_chars)
        vary = self._cases(items) or (lambda item: (item,))
        drawn = draw(items, self._limit, config.seed, fits, vary, self._left_out)
        asked = ({"item": q.id, "question": q.question, "answers": q.answers} for q in drawn)
        self._settle(questions_digest(drawn), [], asked)
        return DocumentEvaluation(given, drawn, UNANSWERABLE not in config.cases), plans

    def _cases(self, items: Sequence[Item]) -> Cases | None:
        """The cases asked for; other documents come from the same data, of generated records from a thousand."""
        config, tokenizer = self._config, self._given.sharer.tokenizer
        if not config.cases:
            return None
        if config.data.startswith(GENERATED):
            items = load(config.data, "document", None, config.seed, for_training=False)

        def tokens(text: str) -> int:
            return len(tokenise(tokenizer, text).ids)

        most, left_out = config.max_document_chars, self._left_out
        return Cases(config.cases, items, config.seed, tokens, most, left_out)

    def _choices(self, items: Sequence[ChoiceItem]) -> tuple[Task[Any], Sequence[Plan]]:
        config, given = self._config, self._given
        if config.cases or config.positions:
            raise ValueError("cases and positions are for questions over documents")
        if any(plan.quoted for plan in plans_of(config.drafts)):
            raise ValueError("drafts: questions with choices are over no document that could be quoted")
        with _of_plans():
            plans = shared_plans(given.bundle, plans_of(config.plans))
        fits = unfit_choice(given, config.max_document_chars)
        drawn = draw_choices(items, self._limit, config.seed, fits, self._left_out)
        training: list[ChoiceItem] = []
        if config.calibration:
            known = {normalise(item.question) for item in drawn}
            training = [item for item in load(config.calibration, "choice") if fits(item) is None]
            if all(normalise(item.question) in known for item in training):
                raise ValueError(f"{config.calibration} holds no question that is not evaluated too")
        asked = (
            {"item": i.id, "question": i.question, "choices": i.choices, "answer": i.letter} for i in drawn
        )
        fitted = [{"seed": config.seed}, *(asdict(item) for item in training)]
        self._settle(questions_digest(drawn), fitted, asked)
        return ChoiceTask(given, drawn, self._log.path.parent, training, config.seed), plans

    def _settle(self, questions: str, training: list[Any], asked: Iterable[Mapping[str, Any]]) -> None:
        """Name the folder after what decides the answers, open the log in it, and write what its items ask."""
        given = self._given
        identical = None if given.identical is None else given.identical.hash
        key = [METHOD, given.bundle.hash, questions, digest(training), identical, *made_in(given.receiver)]
        self._digest = questions
        folder = given.work.parent / digest(key)[:16]
        self._log = PredictionLog(folder / "predictions.jsonl")
        with atomic_write(folder / "questions.jsonl") as partial:
            lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in asked)
            partial.write_text("".join(lines), encoding="utf-8")

    @property
    def _limit(self) -> int | None:
        config = self._config
        return 200 if config.limit is None and config.data.startswith(GENERATED) else config.limit


@contextmanager
def _of_plans(key: str = "plans") -> Iterator[None]:
    try:
        yield
    except (InvalidRequest, Unsupported) as error:
        raise BadConfig(f"{key}: {error}") from error
