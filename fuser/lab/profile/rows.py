"""What is answered in a profile: plans and their rivals, each beside its mismatched control"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from rich.progress import Progress

from fuser.lab.evaluate.deadline import Deadline
from fuser.lab.evaluate.prediction import Prediction
from kvwire.plan import Plan
from kvwire.segment import SliceKind


@dataclass(frozen=True, slots=True)
class Row:
    """One row of answers.

    source: what the Receiver has before or in its question: the slice of a plan, nothing, the document's text, or the
    text of the positions that a plan would send. mismatched: that of the most alike other question instead.
    """

    source: Literal["plan", "receiver", "text", "quote"]
    plan: Plan | None = None
    mismatched: bool = False

    @property
    def name(self) -> str:
        """In the log and in reports."""
        name = {"receiver": "Receiver alone", "text": "document's text", "quote": "text of the excerpt"}.get(
            self.source, str(self.plan or "")
        )
        if self.source == "quote" and self.plan is not None:
            name += f", {self.plan.positions} positions"
        return f"{name}, mismatched" if self.mismatched else name

    @property
    def control(self) -> Row:
        """The same with another question's slice."""
        return replace(self, mismatched=True)


@dataclass(frozen=True, slots=True)
class Screened:
    """A plan, screened: mean loss of the right answers in nats a token, and mean payload bytes, over some questions."""

    plan: Plan
    loss: float
    mean_bytes: float
    questions: int


class Profiled(Protocol):
    """One kind of slice, as a profile measures it.

    metric: of a prediction, that plans are judged by. questions: ids, in the order of the indices used here. groups:
    id -> what it shares with others, its document.
    """

    @property
    def kind(self) -> SliceKind: ...
    @property
    def metric(self) -> str: ...
    @property
    def questions(self) -> Sequence[str]: ...
    @property
    def groups(self) -> dict[str, str]: ...

    def read(self, progress: Progress, deadline: Deadline) -> None:
        """What the Sharer reads of all questions, unless it is on disk. Raises OutOfTime; what was read is kept."""
        ...

    def screen(self, plan: Plan, count: int) -> Screened:
        """The loss of the right answers of the first `count` questions behind their slices."""
        ...

    def rivals(self, plans: Sequence[Plan]) -> list[Row]:
        """Rows that need no slice, mismatched ones among them, for the plans that are answered."""
        ...

    def answers(self, row: Row, todo: Sequence[int]) -> Iterator[list[Prediction]]:
        """Answers to some of the questions, a batch at a time; their bytes are payloads, or UTF-8 of a text."""
        ...

    def cap_bytes(self, plan: Plan) -> int:
        """The most payload bytes that the plan's codec could need for any of the questions."""
        ...
