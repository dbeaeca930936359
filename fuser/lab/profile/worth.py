"""From answers to what each plan is worth: rows with paired intervals, and which of them nothing beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fuser.bundle.plans import Interval, PlanRow
from fuser.lab.evaluate.evaluation import Task
from fuser.lab.evaluate.report import Marks, share
from fuser.lab.evaluate.rows import Line
from fuser.lab.interval import difference, gap_closed
from kvwire.plan import Plan

Costs = tuple[float, ...]
"""Of one choice, all to be small; what should be large counts with its sign turned."""


def worth(marks: Marks, task: Task[Any], plan: Plan, raw: Plan) -> PlanRow:
    """What a plan is worth, over the questions that it, raw, their controls and the Receiver alone have answered."""
    rows, metric = task.rows, task.metric
    line, alone = rows.line(task.transferred[0], plan), rows.line("receiver")
    lines = [rows.line(name, by) for by in (plan, raw) for name in task.transferred]
    (own, other, raw_own, raw_other, receiver), groups = marks(metric, *lines, alone)
    kept, gap = gap_closed(own, receiver, raw_own, groups), None
    if "text" in {row.name for row in rows}:
        (mine, floor, text), among = marks(metric, line, alone, rows.line("text"))
        gap = gap_closed(mine, floor, text, among)
    sizes = [one.bytes for one in marks.found[line.key].values()]
    return PlanRow(
        plan=plan,
        kind=task.kind,
        mean_bytes=round(sum(sizes) / len(sizes), 1),
        max_bytes=max(sizes),
        cap_bytes=task.cap_bytes(plan),
        right=share(own),
        transfer=difference(own, other, groups),
        against_raw=difference(own - other, raw_own - raw_other, groups),
        kept=_known(kept),
        gap=_known(gap),
        questions=len(own),
    )


def rival(marks: Marks, task: Task[Any], line: Line[Any]) -> dict[str, Any]:
    """A line without a slice as plain JSON values; its transfer is over its control, None where it has none."""
    (own,), _ = marks(task.metric, line)
    transfer = None
    for control in (row.name for row in task.rows if row.control == line.row.name):
        (mine, other), groups = marks(task.metric, line, task.rows.line(control, line.plan))
        transfer = asdict(difference(mine, other, groups))
    sizes = [one.bytes for one in marks.found[line.key].values()]
    mean, right = sum(sizes) / len(sizes), asdict(share(own))
    return {
        "name": line.label,
        "mean_bytes": mean,
        "right": right,
        "transfer": transfer,
        "questions": len(own),
    }


def best(rows: Sequence[PlanRow]) -> tuple[PlanRow, ...]:
    """The rows that no other beats in mean bytes, in the most bytes it may need, and in transfer; cheapest first."""
    costs = [(row.mean_bytes, float(row.cap_bytes), -row.transfer.point) for row in rows]
    return tuple(sorted((rows[i] for i in front(costs)), key=lambda row: row.mean_bytes))


def front(points: Sequence[Costs]) -> list[int]:
    """Indices of the points that no other one dominates (Pareto), in their order; of equal ones the first.

    A point dominates another that it is nowhere worse than, and somewhere better.
    """
    return [
        index
        for index, own in enumerate(points)
        if not any(_beats(other, own, at < index) for at, other in enumerate(points) if at != index)
    ]


def nearest_front(points: Sequence[tuple[float, float]], count: int) -> list[int]:
    """At most `count` indices of (cost, loss), those nearest to the front, in their order.

    How near is how much more a point loses than the best that costs no more. Of a front with more points than
    wanted, evenly spaced ones are taken, both ends among them.
    """
    behind = [loss - min(other for cost, other in points if cost <= own) for own, loss in points]
    on = sorted((index for index, gap in enumerate(behind) if gap <= 0), key=points.__getitem__)
    if len(on) >= count:
        steps = max(1, count - 1)
        return sorted({on[round(step * (len(on) - 1) / steps)] for step in range(count)})
    rest = sorted((index for index, gap in enumerate(behind) if gap > 0), key=behind.__getitem__)
    return sorted(on + rest[: count - len(on)])


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
    answered = f"{len(report['plans'])} answered; * is in the table."
    return "\n".join([*lines, "", f"{screened} of {plans} plans screened, {answered}"])


def _known(interval: Interval | None) -> Interval | None:
    """None for one of not-a-numbers: there was nothing to close."""
    return None if interval is None or math.isnan(interval.point) else interval


def _shown(value: Mapping[str, Any] | None) -> str:
    return "" if value is None else str(Interval(value["point"], value["low"], value["high"]))


def _beats(other: Costs, own: Costs, earlier: bool) -> bool:
    return all(a <= b for a, b in zip(other, own, strict=True)) and (other != own or earlier)
