"""Multiple choice as one of the tables of `kvwire eval`: models loaded when needed, answers kept as they come."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from fuser.atomic import atomic_write
from fuser.bundle.bundle import Bundle
from fuser.lab.evaluate.choice.evaluation import Budget, ChoiceEvaluation
from fuser.lab.evaluate.choice.needs import CHOICE_ROWS, READ_SHARER, Given, missing
from fuser.lab.evaluate.deadline import Deadline
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.prediction import PredictionLog
from fuser.lab.evaluate.rows import Row, rows_of
from fuser.prompts.choice import ChoiceItem
from kvwire.plan import WHOLE, Plan


@dataclass(frozen=True, slots=True)
class ChoiceGiven:
    """What a table is over, and what some rows need. training: questions that none of the evaluated ones is among.
    plans: how slices are sent, the whole one among them."""

    items: Sequence[ChoiceItem]
    training: Sequence[ChoiceItem] = ()
    identical: Bundle | None = None
    batch: int = 16
    seed: int = 1
    plans: Sequence[Plan] = (WHOLE,)


class ChoiceTable:
    """The rows of `fuser.lab.evaluate.choice.evaluation`; work: directory for what is computed once.

    Attributes:
        rows: those known.
    """

    def __init__(
        self,
        bundle: Bundle,
        sharer: Model,
        receiver: Model,
        given: ChoiceGiven,
        log: PredictionLog,
        work: Path,
    ) -> None:
        self._bundle = bundle
        self._sharer = sharer
        self._receiver = receiver
        self._given = given
        self._log = log
        self.rows = rows_of(CHOICE_ROWS, given.plans)
        self._work = work
        self._kept = log.folder / "notes.json"
        self.notes: Mapping[str, Any] = (
            json.loads(self._kept.read_text("utf-8")) if self._kept.exists() else {}
        )

    def missing(self, kind: str) -> str | None:
        """Why rows of a kind cannot be run with what is given; None where they can. Unknown ones raise ValueError."""
        given = self._given
        asked = len({item.question for item in given.items})
        return missing(kind, Given(self._bundle, True, bool(given.training), given.identical, asked))

    def run(self, rows: Sequence[Row], progress: Progress, deadline: Deadline) -> None:
        """Answer what is not answered yet.

        Raises:
            OutOfTime: the deadline passed; answers so far are kept.
        """
        given = self._given
        rows = [row for row in rows if len(self._log.done(row.name)) < len(given.items)]
        if not rows:
            return
        deadline.check()
        reads = any(row.kind in READ_SHARER for row in rows)
        evaluation = ChoiceEvaluation(
            self._bundle,
            (self._receiver.network, self._receiver.tokenizer),
            (self._sharer.network, self._sharer.tokenizer) if reads else None,
            given.items,
            given.training,
            self._work,
            identical=given.identical,
            budget=Budget(batch=given.batch),
            seed=given.seed,
        )
        before = self.notes
        for count, prediction in enumerate(evaluation.run(rows, progress, self._log.done, deadline.check), 1):
            self._log.append([prediction])
            self.notes = _together(before, evaluation.notes)
            if count % given.batch == 0:
                self._keep()
                deadline.check()
        self._keep()

    def _keep(self) -> None:
        with atomic_write(self._kept) as partial:
            partial.write_text(json.dumps(self.notes), "utf-8")


def _together(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Notes of a run and of those that it goes on from: counts of questions add up, what is fitted stays."""
    found = dict(before)
    for name, value in now.items():
        if name in ("asked", "routed") or name.startswith("shots"):
            found[name] = found.get(name, 0) + value
        elif value is not None:
            found[name] = value
    return found
