"""The loop of every evaluation: questions in batches, each batch in every row, answers kept as they come.

A `Task` knows one kind of question; `fuser.lab.evaluate.documents` and `.choices` are the two. What rows of a batch
share is computed once, when a row first needs it, and belongs to the `Batch`.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from rich.progress import Progress

from fuser.bundle.bundle import Bundle
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.prediction import Prediction, PredictionLog
from fuser.lab.evaluate.rows import Answers, Line, Registry
from kvwire.plan import WHOLE, Plan
from kvwire.segment import SliceKind

Bound = TypeVar("Bound")
"""A bundle between two models, as one kind of question needs it."""
_TOGETHER = 1 << 14  # tokens of a batch, padding included


class OutOfTime(Exception):
    """The time is up; what was done is kept."""


class TimeLimit:
    """A limit of some minutes from now; none by default."""

    def __init__(self, minutes: float = math.inf) -> None:
        self._end = time.monotonic() + 60 * minutes

    @property
    def minutes_left(self) -> float:
        return max(0.0, (self._end - time.monotonic()) / 60)

    def check(self) -> None:
        if time.monotonic() > self._end:
            raise OutOfTime


@dataclass(frozen=True, slots=True)
class Given:
    """With what questions are answered.

    identical: a bundle whose Sharer is the Receiver's own model, for the row of that name. work: directory of what the
    Sharer reads. batch: questions at once. drafts: whether the Sharer also writes a draft for each question.
    """

    bundle: Bundle
    sharer: Model
    receiver: Model
    work: Path
    identical: Bundle | None = None
    batch: int = 16
    drafts: bool = False


class Task(ABC, Generic[Bound]):
    """Questions of one kind, and how they are answered.

    Args:
        ids: of the questions, each once. lengths: in tokens, or about; questions of like length are answered together.
        groups: id -> what a question shares with others, its document (`fuser.lab.interval`); none where nothing is.

    Attributes:
        rows: all that there are. kind: of the slices whose plans are judged; transferred: the row of these and its
        control. metric: of a prediction, by which plans are judged.
        progress, deadline: of the run that is under way.
    """

    rows: ClassVar[Registry[Any]]
    kind: SliceKind
    transferred: tuple[str, str] = ("fused", "mismatched")
    metric: ClassVar[str]

    def __init__(
        self, given: Given, ids: Sequence[str], lengths: Sequence[int], groups: Mapping[str, str]
    ) -> None:
        self.given, self.ids, self.lengths, self.groups = given, tuple(ids), tuple(lengths), dict(groups)
        self.progress, self.deadline = Progress(disable=True), TimeLimit()

    @property
    def notes(self) -> Mapping[str, Any]:
        """What else a report should say about the rows: plain JSON values."""
        return {}

    @cached_property
    def transfer(self) -> Bound:
        return self.between(self.given.bundle, self.given.sharer)

    @cached_property
    def identical(self) -> Bound:
        if self.given.identical is None:
            raise ValueError("there is no bundle whose Sharer is the Receiver's own model")
        return self.between(self.given.identical, self.given.receiver)

    @abstractmethod
    def between(self, bundle: Bundle, sharer: Model) -> Bound:
        """A bundle between a Sharer and the Receiver."""

    @abstractmethod
    def batch(self, picked: Sequence[int]) -> Batch:
        """Some of the questions, by their indices."""

    @abstractmethod
    def mark(self, index: int, text: str, letters: Any) -> Mapping[str, float]:
        """Every metric of an answer to a question, each in [0, 1]."""

    @abstractmethod
    def cap_bytes(self, plan: Plan) -> int:
        """The most payload bytes that the plan's codec could need for any of the questions."""


class Batch(ABC):
    """Questions that are answered together. picked: their indices."""

    def __init__(self, task: Task[Any], picked: Sequence[int]) -> None:
        self.picked = list(picked)
        self._registry = task.rows
        self._found: dict[Line[Any], Answers] = {}

    def of(self, name: str, plan: Plan = WHOLE) -> Answers:
        return self.answers(self._registry.line(name, plan))

    def answers(self, line: Line[Any]) -> Answers:
        if line not in self._found:
            self._found[line] = line.row.answer(self, line.plan)
        return self._found[line]

    @abstractmethod
    def losses(self, plan: Plan) -> Answers:
        """How surprised the Receiver is by the right answers behind slices by a plan: marks `loss`, nats a token."""


def answer(
    task: Task[Any],
    lines: Sequence[Line[Any]],
    log: PredictionLog,
    progress: Progress,
    deadline: TimeLimit,
    count: int | None = None,
) -> None:
    """Answer in every line what the log does not hold yet.

    Args:
        count: number of questions to answer, from the first on; all by default.

    Raises:
        OutOfTime: the deadline passed; answers so far are kept.
    """
    task.progress, task.deadline = progress, deadline
    some = range(len(task.ids))[:count]
    bars = {}
    for name in dict.fromkeys(line.row.name for line in lines):
        done = [len(log.of(line.key)) for line in lines if line.row.name == name]
        bars[name] = progress.add_task(name, total=len(done) * len(some), completed=sum(done))
    # Batches stay as they are, whatever is answered: a run in parts gives what one run gives.
    for picked in bucketed([task.lengths[index] for index in some], task.given.batch):
        batch = task.batch(picked)
        for line in lines:
            known = log.of(line.key)
            todo = [at for at, index in enumerate(picked) if task.ids[index] not in known]
            if todo:
                deadline.check()
                log.append(predicted(task, batch, line, todo))
                progress.advance(bars[line.row.name], len(todo))


def predicted(task: Task[Any], batch: Batch, line: Line[Any], todo: Sequence[int]) -> list[Prediction]:
    """The answers of a line to some places of a batch, marked."""
    found = []
    for at in todo:
        index, said = batch.picked[at], batch.answers(line)[at]
        right = task.mark(index, said.text, said.letters) if said.marks is None else said.marks
        text = said.text.strip()
        made = said.seconds, said.bytes
        found.append(Prediction(*line.key, task.ids[index], text, right, *made, signals=said.signals))
    return found


def bucketed(lengths: Sequence[int], batch: int, most: int = _TOGETHER) -> list[list[int]]:
    """Indices in batches of like length, shortest first; smaller ones where padded tokens would pass the limit."""
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        last = found[-1] if found else []
        if not last or len(last) >= batch or (len(last) + 1) * lengths[index] > most:
            found.append([])
        found[-1].append(index)
    return found
