"""A profile from a bundle and training data to its table: an evaluation over plans, by the loop of every evaluation.

Two stages: the loss of the right answers screens every plan cheaply; the plans nearest to the front of loss against
bytes then answer, with their controls, and the front of what they transfer is the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.progress import Progress

from fuser.bundle.plans import BadTable, PlanRow, PlanTable
from fuser.config import to_dict
from fuser.lab.evaluate.choices import ChoiceTask
from fuser.lab.evaluate.documents import DocumentEvaluation
from fuser.lab.evaluate.evaluation import Batch, OutOfTime, Task, TimeLimit, answer
from fuser.lab.evaluate.fit import unfit, unfit_choice
from fuser.lab.evaluate.plans import registry_of
from fuser.lab.evaluate.prediction import PredictionLog
from fuser.lab.evaluate.provenance import METHOD, data_of, provenance
from fuser.lab.evaluate.questions import digest, draw, draw_choices, questions_digest, read_questions
from fuser.lab.evaluate.report import Marks
from fuser.lab.evaluate.rows import Line, Row
from fuser.lab.evaluate.settings import Setup, made_in
from fuser.lab.profile.grid import ProfileConfig, check_training, grid
from fuser.lab.profile.worth import best, nearest_front, rival, worth
from kvwire.plan import WHOLE, Plan
from kvwire.segment import SliceKind

_SCREEN: Row[Batch] = Row("loss", "loss", lambda batch, plan: batch.losses(plan), by="plan")
_FLOOR = ("receiver", "text")
_RIVALS = {
    SliceKind.EXCERPT: (*_FLOOR, "excerpt-text", "mismatched-text"),
    SliceKind.DRAFT: (*_FLOOR, "drafted-text"),
    SliceKind.SHARED: _FLOOR,
}


@dataclass(frozen=True, slots=True)
class Screened:
    """A plan, screened: mean loss of the right answers in nats a token, and mean payload bytes, over some questions."""

    plan: Plan
    loss: float
    mean_bytes: float
    questions: int


class ProfileRun:
    """One profile. Reads the data and draws its questions at once; models are loaded when they are needed.

    Attributes:
        plans: all that are screened, the raw one first.

    Raises:
        ValueError: data kept from training, or bad data; no question left; a value of a dial that the bundle does not
            have; or a model that the bundle was not made for.
        BadBundle: the bundle cannot be read. Unsupported: it makes no slices of the data's kind.
    """

    def __init__(self, bundle: Path, config: ProfileConfig, setup: Setup) -> None:
        check_training(config.data)
        self._config, self._path = config, bundle
        self._given = replace(setup.given(bundle, "profile", config.batch), drafts=config.drafts)
        registry = registry_of(self._given.bundle)
        codecs = [[codec.name, codec.parameters_hash] for codec in registry.refs()]
        self._task, self._digest = self._draw()
        self.plans = grid(self._given.bundle, self._task.kind, registry.names(), config.dials)
        if reason := self._task.rows[self._task.transferred[1]].needs(self._task):
            raise ValueError(f"no slice can be mismatched: {reason}")
        key = [METHOD, self._given.bundle.hash, self._digest, self._task.kind, codecs]
        key += made_in(self._given.receiver)
        self._log = PredictionLog(self._given.work.parent / digest(key)[:16] / "predictions.jsonl")

    def measure(self, progress: Progress, max_minutes: float = math.inf) -> bool:
        """Screen and answer what is not done yet; returns whether all is done."""
        deadline, task = TimeLimit(max_minutes), self._task
        try:
            screen = [Line(_SCREEN, plan) for plan in self.plans]
            answer(task, screen, self._log, progress, deadline, self._config.screened)
            answer(task, self._lines(), self._log, progress, deadline)
        except OutOfTime:
            return False
        return True

    @property
    def complete(self) -> bool:
        """Whether every plan is screened, and every line answered."""
        screened = len(self._screened()) == len(self.plans)
        return screened and all(self._answered(line, len(self._task.ids)) for line in self._lines())

    @property
    def worth(self) -> list[PlanRow]:
        """What each plan is worth; none before all is answered."""
        if not self.complete:
            return []
        marks = Marks(self._log.predictions, self._task.groups)
        return [worth(marks, self._task, plan, self.plans[0]) for plan in self._chosen()]

    def table(self, other_kinds: Path | None = None) -> PlanTable:
        """The plans that nothing beats, as an edge picks from them.

        Args:
            other_kinds: a bundle's directory, whose table's rows of other kinds of slice are kept.
        """
        kind, sha256 = self._task.kind, self._given.bundle.hash
        kept: tuple[PlanRow, ...] = ()
        measured: dict[str, Any] = {}
        if other_kinds is not None:
            try:
                before = PlanTable.load(other_kinds, sha256)
                kept = tuple(row for row in before.rows if row.kind is not kind)
                measured = {name: value for name, value in before.measured.items() if name != kind.value}
            except BadTable:
                pass  # none yet, or of a bundle that was there before
        return PlanTable(sha256, (*kept, *best(self.worth)), measured | {kind.value: self._about()})

    def report(self, command: Sequence[str] = ()) -> dict[str, Any]:
        """All that is measured so far as plain JSON values; `command` is how it was called."""
        rows, task = self.worth, self._task
        marks = Marks(self._log.predictions, task.groups)
        sent = self._task.transferred
        rivals = [
            line for line in self._lines() if rows and line.row.name not in sent and not line.row.control
        ]
        return {
            "complete": self.complete,
            "kind": task.kind.value,
            "plans": [to_dict(row) | {"label": str(row.plan)} for row in rows],
            "rivals": [rival(marks, task, line) for line in rivals],
            "table": [str(row.plan) for row in best(rows)],
            "screen": [to_dict(one) | {"label": str(one.plan)} for one in self._screened()],
            "grid": len(self.plans),
            "bundle": {"path": str(self._path), "sha256": self._given.bundle.hash},
            "command": list(command),
            **self._about(),
        }

    def _about(self) -> dict[str, Any]:
        config, task = self._config, self._task
        data = data_of(config.data, self._digest, len(task.ids), task.groups)
        return {"data": data | {"seed": config.seed}, **provenance(self._given.receiver)}

    def _lines(self) -> list[Line[Any]]:
        """What is answered: the chosen plans with their controls, and rows that need no slice."""
        rows, chosen, own = self._task.rows, self._chosen(), self._given.bundle.config.selection.positions
        counts = sorted({plan.positions or own for plan in chosen})
        quoted = [replace(WHOLE, positions=0 if count == own else count) for count in counts]
        rivals = [row.name for row in rows if row.name in _RIVALS[self._task.kind]]
        return rows.lines(self._task.transferred, chosen, chosen) + rows.lines(rivals, quoted)

    def _chosen(self) -> list[Plan]:
        """The plans that are answered: the raw one, then those nearest to the front of loss against bytes."""
        found = sorted(self._screened(), key=lambda one: one.mean_bytes)
        near = nearest_front([(one.mean_bytes, one.loss) for one in found], self._config.plans)
        return list(dict.fromkeys([self.plans[0], *(found[index].plan for index in near)]))

    def _screened(self) -> list[Screened]:
        count = min(self._config.screened, len(self._task.ids))
        found = []
        for line in (Line(_SCREEN, plan) for plan in self.plans):
            if self._answered(line, count):
                said = [self._log.of(line.key)[item] for item in self._task.ids[:count]]
                loss, size = sum(one.right["loss"] for one in said), sum(one.bytes for one in said)
                found.append(Screened(line.plan, loss / count, size / count, count))
        return found

    def _answered(self, line: Line[Any], count: int) -> bool:
        return self._log.of(line.key).keys() >= set(self._task.ids[:count])

    def _draw(self) -> tuple[Task[Any], str]:
        """The questions, as their kind of slice is measured, and their digest."""
        config, given = self._config, self._given
        limit, most = config.questions, config.max_document_chars
        choices, documents = read_questions(config.data, "auto", limit, config.seed, max_document_chars=most)
        if choices:
            if config.drafts:
                raise ValueError("drafts: plans of drafts are measured over documents")
            items = draw_choices(choices, limit, config.seed, unfit_choice(given, most))
            return ChoiceTask(given, items, given.work), questions_digest(items)
        asked = draw(documents, limit, config.seed, unfit(given, most))
        kind = SliceKind.DRAFT if config.drafts else SliceKind.EXCERPT
        return DocumentEvaluation(given, asked, kind=kind), questions_digest(asked)
