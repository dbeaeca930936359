"""From answers to what each plan is worth: rows with paired intervals, and which of them nothing beats"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fuser.bundle.plans import Interval, PlanRow
from fuser.lab.evaluate.prediction import Prediction
from fuser.lab.interval import difference, gap_closed, mean, wilson
from fuser.lab.profile.front import front
from fuser.lab.profile.rows import Profiled, Row
from kvwire.plan import Plan

ALONE = Row("receiver")
TEXT = Row("text")


@dataclass(frozen=True, slots=True)
class Rival:
    """A row that needs no slice. transfer: over its mismatched row, None where it has none. Shares are in [0, 1]."""

    name: str
    mean_bytes: float
    right: Interval
    transfer: Interval | None
    questions: int


class Answers:
    """All answers of a profile, and what they say of its rows.

    Args:
        raw: the plan that others are compared with.
    """

    def __init__(self, predictions: Iterable[Prediction], profiled: Profiled, raw: Plan) -> None:
        self._profiled, self._raw = profiled, Row("plan", raw)
        self._found: dict[str, dict[str, Prediction]] = {}
        for prediction in predictions:
            self._found.setdefault(prediction.row, {})[prediction.item] = prediction
        numbers = {name: number for number, name in enumerate(dict.fromkeys(profiled.groups.values()))}
        self._group = {item: numbers[name] for item, name in profiled.groups.items()}

    def complete(self, row: Row) -> bool:
        """Whether every question is answered in this row."""
        return self._found.get(row.name, {}).keys() >= set(self._profiled.questions)

    def plan(self, plan: Plan) -> PlanRow:
        """What a plan is worth, over the questions that its rows, the raw plan's and the Receiver alone answered."""
        row, raw = Row("plan", plan), self._raw
        (own, other, raw_own, raw_other, alone), groups = self._marks(
            row, row.control, raw, raw.control, ALONE
        )
        sizes = [p.bytes for p in self._found[row.name].values()]
        kept = gap_closed(own, alone, raw_own, groups)
        gap = None
        if self._found.get(TEXT.name):
            (own_too, alone_too, text), among = self._marks(row, ALONE, TEXT)
            gap = gap_closed(own_too, alone_too, text, among)
        return PlanRow(
            plan=plan,
            kind=self._profiled.kind,
            mean_bytes=round(sum(sizes) / len(sizes), 1),
            max_bytes=max(sizes),
            cap_bytes=self._profiled.cap_bytes(plan),
            right=_share(own),
            transfer=difference(own, other, groups),
            against_raw=difference(own - other, raw_own - raw_other, groups),
            kept=_known(kept),
            gap=_known(gap),
            questions=len(own),
        )

    def rival(self, row: Row) -> Rival:
        """A row without a slice."""
        (own,), _ = self._marks(row)
        transfer = None
        if self._found.get(row.control.name):
            (mine, other), groups = self._marks(row, row.control)
            transfer = difference(mine, other, groups)
        sizes = [p.bytes for p in self._found[row.name].values()]
        return Rival(row.name, sum(sizes) / len(sizes), _share(own), transfer, len(own))

    def _marks(self, *rows: Row) -> tuple[list[Tensor], Tensor]:
        """(questions,) float32 marks per row over the questions that all have answered, and their groups."""
        found = [self._found[row.name] for row in rows]
        items = sorted(set.intersection(*(set(answers) for answers in found)))
        metric = self._profiled.metric
        columns = [
            torch.tensor([answers[item].right[metric] for item in items], device="cpu") for answers in found
        ]
        return columns, torch.tensor([self._group[item] for item in items], device="cpu")


def best(rows: Sequence[PlanRow]) -> tuple[PlanRow, ...]:
    """The rows that no other beats in mean bytes, in the most bytes it may need, and in transfer; cheapest first."""
    costs = [(row.mean_bytes, float(row.cap_bytes), -row.transfer.point) for row in rows]
    return tuple(sorted((rows[i] for i in front(costs)), key=lambda row: row.mean_bytes))


def markdown(report: Mapping[str, Any]) -> str:
    """The answered plans and their rivals as Markdown, in percent with 95 % intervals; a star marks the table's."""
    lines = [
        "| plan | payload bytes, mean | most | right % | transfer | less that of raw | % of raw kept | questions |",
        "|---|---|---|---|---|---|---|---|",
    ]
    chosen = set(report["table"])
    for row in sorted(report["plans"], key=lambda row: row["mean_bytes"]):
        name = f"{row['label']}{' *' if row['label'] in chosen else ''}"
        cells = [_shown(row[key]) for key in ("right", "transfer", "against_raw", "kept")]
        size = f"{row['mean_bytes']:.0f} | {row['max_bytes']}"
        lines.append(f"| {name} | {size} | {' | '.join(cells)} | {row['questions']} |")
    for row in report["rivals"]:
        cells = [_shown(row["right"]), _shown(row["transfer"]), "", ""]
        lines.append(
            f"| {row['name']} | {row['mean_bytes']:.0f} | | {' | '.join(cells)} | {row['questions']} |"
        )
    screened, plans = len(report["screen"]), report["grid"]
    lines += [
        "",
        f"{screened} of {plans} plans screened, {len(report['plans'])} answered; * is in the table.",
    ]
    return "\n".join(lines)


def as_json(row: PlanRow | Rival) -> dict[str, Any]:
    """Plain JSON values, one for each attribute."""
    return asdict(row)


def _share(marks: Tensor) -> Interval:
    binary = bool(((marks == 0) | (marks == 1)).all())
    return wilson(round(float(marks.sum())), len(marks)) if binary else mean(marks)


def _known(interval: Interval | None) -> Interval | None:
    """None for one of not-a-numbers: there was nothing to close."""
    return None if interval is None or math.isnan(interval.point) else interval


def _shown(value: Mapping[str, Any] | None) -> str:
    return "" if value is None else str(Interval(value["point"], value["low"], value["high"]))
