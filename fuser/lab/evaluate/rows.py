"""Rows of a table: a registry of ways to answer, each a method of a batch of questions.

To add one, decorate a method of the batch in `documents.py` or `choices.py`:

    @ROWS.row("zeroed", "fused, a slice of zeros", needs=_excerpts, control="fused", by="plan")
    def zeroed(self, plan: Plan) -> Answers:
        return self.fused(plan, change=torch.zeros_like)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

from torch import Tensor

from kvwire.plan import WHOLE, Plan

B = TypeVar("B")
Answers = Sequence["RowAnswer"]
"""One for each question of a batch, in order."""


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """What a row says to a question.

    seconds: all that such an answer takes, on both sides, a question's share of its batch. bytes: payload from cloud to
    edge. letters: (10,) float32, logits of A to J at its first position, of a question with choices. marks: in place of
    those that its text gets. signals: what the Receiver's probabilities say of it (`fuser.kv.generate.SIGNALS`), of an
    answer over documents.
    """

    text: str
    seconds: float = 0.0
    bytes: int = 0
    letters: Tensor | None = None
    marks: Mapping[str, float] | None = None
    signals: Mapping[str, float] = field(default_factory=dict)

    def with_cost_of(self, other: RowAnswer) -> RowAnswer:
        """The same answer, which took another one first: its seconds and its bytes come on top."""
        return replace(self, seconds=self.seconds + other.seconds, bytes=self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class Row(Generic[B]):
    """One way to answer.

    label: what a table calls it. answer: answers of a batch by a plan. needs: what a task lacks for it, None where it
    can be run. control: the row that it is a control of; the report shows what that row has over it. by: how much of a
    plan means something to it, or "draft" where its plans are those of drafts; it is made once for each. on_request:
    whether it is run only where it is named.
    """

    name: str
    label: str
    answer: Callable[[B, Plan], Answers]
    needs: Callable[[Any], str | None] = lambda task: None
    control: str = ""
    by: Literal["", "positions", "plan", "draft"] = ""
    on_request: bool = False


@dataclass(frozen=True, slots=True)
class Line(Generic[B]):
    """A row by a plan: one line of a table. plan: as much of one as means something to the row."""

    row: Row[B]
    plan: Plan = WHOLE

    @property
    def key(self) -> tuple[str, str]:
        """The names of row and plan in the log and in reports; the bundle's own way of sending has no name."""
        return self.row.name, "" if self.plan == WHOLE else str(self.plan)

    @property
    def name(self) -> str:
        """Such as `fused int8:m8`."""
        return " ".join(filter(None, self.key))

    @property
    def label(self) -> str:
        """Such as `fused, int8:m8`."""
        return ", ".join(filter(None, (self.row.label, self.key[1])))


class Registry(Generic[B]):
    """The rows of one kind of question. about: what those are, for an error."""

    def __init__(self, about: str) -> None:
        self._about = about
        self._rows: dict[str, Row[B]] = {}

    def row(
        self, name: str, label: str, **options: Any
    ) -> Callable[[Callable[[B, Plan], Answers]], Callable[[B, Plan], Answers]]:
        """Decorator that adds a function as a row; `options` are the fields of `Row`."""

        def add(answer: Callable[[B, Plan], Answers]) -> Callable[[B, Plan], Answers]:
            self._rows[name] = Row(name, label, answer, **options)
            return answer

        return add

    def __getitem__(self, name: str) -> Row[B]:
        """A row by its name. Raises ValueError where there is none."""
        if name not in self._rows:
            raise ValueError(f"unknown row {name!r}; rows {self._about} are {', '.join(self._rows)}")
        return self._rows[name]

    def __iter__(self) -> Iterator[Row[B]]:
        return iter(self._rows.values())

    def line(self, name: str, plan: Plan = WHOLE) -> Line[B]:
        """A row by as much of a plan as it has."""
        row = self[name]
        chosen = replace(WHOLE, positions=plan.positions, runs=plan.runs, fit=plan.fit)
        return Line(row, {"": WHOLE, "positions": chosen}.get(row.by, plan))

    def lines(
        self, names: Sequence[str], plans: Sequence[Plan] = (WHOLE,), drafts: Sequence[Plan] = (WHOLE,)
    ) -> list[Line[B]]:
        """The named rows in their order, each by every plan, once; those of drafts by theirs."""
        return list(
            dict.fromkeys(
                self.line(row.name, plan)
                for row in self
                if row.name in names
                for plan in (drafts if row.by == "draft" else plans)
            )
        )
