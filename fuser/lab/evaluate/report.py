"""From predictions to the table: every line with its counts and intervals, paired differences, the gap closed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from fuser.bundle.plans import Interval
from fuser.lab.evaluate.confidence import table_of
from fuser.lab.evaluate.prediction import Prediction
from fuser.lab.evaluate.rows import Line, Registry
from fuser.lab.interval import difference, gap_closed, mean, wilson

_DIFFERENCES = (
    ("fused", "receiver", ""),
    ("fused", "calibrated", ""),
    ("fused", "relay-fair", ""),
    ("fused", "excerpt-text", ""),
    ("fused", "identical", ""),
    ("fused", "wrong-binding", ""),
    ("text", "own", "lost by alignment and selection: "),
    ("own", "fused", "lost by translation: "),
    ("drafted", "drafted-text", ""),
)
"""Rows compared beside those that have a control of their own (`Row.control`)."""
_ABOUT = {("fused", "mismatched"): "transfer: ", ("drafted", "drafted-mismatched"): "transfer: "}
_CEILINGS = ("text", "sharer")
MARGIN = 0.05
"""How far a control may be from the Receiver alone, either way, and still be called equivalent to it."""


class Marks:
    """Marks of lines over the questions that they share.

    Args:
        groups: item -> what it shares with others, its document (see `fuser.lab.interval`); empty where nothing is.
    """

    def __init__(self, predictions: Iterable[Prediction], groups: Mapping[str, str]) -> None:
        self.found: dict[tuple[str, str], dict[str, Prediction]] = {}
        for one in predictions:
            self.found.setdefault(one.key, {})[one.item] = one
        numbers = {name: number for number, name in enumerate(dict.fromkeys(groups.values()))}
        self._numbers = {item: numbers[name] for item, name in groups.items()}

    def __call__(self, metric: str, *lines: Line[Any]) -> tuple[list[Tensor], Tensor | None]:
        """(questions,) float32 marks of each line, and the questions' groups; no marks where a line has none."""
        answers = [self.found.get(line.key, {}) for line in lines]
        shared = set.intersection(*(set(each) for each in answers))
        items = sorted(item for item in shared if all(metric in each[item].right for each in answers))
        if not items:
            return [], None
        columns = [torch.tensor([each[i].right[metric] for i in items], device="cpu") for each in answers]
        groups = [self._numbers[item] for item in items] if self._numbers else None
        return columns, None if groups is None else torch.tensor(groups, device="cpu")


def share(marks: Tensor, groups: Tensor | None = None, graded: bool = False) -> Interval:
    """Mean of marks: Wilson's interval where each is right or wrong, unless they are `graded`; else a bootstrap."""
    binary = bool(((marks == 0) | (marks == 1)).all()) and not graded
    return wilson(round(float(marks.double().sum())), len(marks)) if binary else mean(marks, groups)


def summarise(
    predictions: Iterable[Prediction],
    lines: Sequence[Line[Any]],
    rows: Registry[Any],
    asked: int,
    groups: Mapping[str, str] | None = None,
    parts: Mapping[str, Collection[str]] | None = None,
) -> dict[str, Any]:
    """The lines that have answers, then differences per metric, then the same for every part; plain JSON values.

    A difference is over the questions that all its lines have answered, and says how many those are.

    Args:
        lines: of the table, in its order. rows: all that there are; answers of others are only compared with.
        asked: questions of the evaluation; a line with fewer answers is marked as not complete.
        groups: as in `Marks`.
        parts: name -> items that are also reported on alone.
    """
    predictions, groups = list(predictions), groups or {}
    table = _table(Marks(predictions, groups), lines, rows, asked)
    if parts:
        table["parts"] = {
            name: {"questions": len(items)}
            | _table(Marks([p for p in predictions if p.item in items], groups), lines, rows, len(items))
            for name, items in parts.items()
        }
    return table


def _table(marks: Marks, lines: Sequence[Line[Any]], rows: Registry[Any], asked: int) -> dict[str, Any]:
    shown = [_row(line, asked, marks) for line in lines if line.key in marks.found]
    metrics = list(dict.fromkeys(metric for row in shown for metric in row["metrics"]))
    return {
        "rows": shown,
        "differences": {metric: _differences(metric, marks, lines, rows) for metric in metrics},
        "equivalence": {metric: _equivalence(metric, marks, lines, rows) for metric in metrics},
    }


def _row(line: Line[Any], asked: int, marks: Marks) -> dict[str, Any]:
    found = marks.found[line.key].values()
    seconds = sum(p.seconds for p in found) / len(found)
    metrics: dict[str, Any] = {}
    for metric in dict.fromkeys(name for p in found for name in p.right):
        (column,), groups = marks(metric, line)
        interval = share(column, groups, graded=metric == "f1")
        total = round(float(column.double().sum()), 4)
        metrics[metric] = {"right": total, "count": len(column)} | asdict(interval)
    row, plan = line.key
    return {
        "row": row,
        "plan": plan,
        "label": line.label,
        "questions": len(found),
        "complete": len(found) == asked,
        "metrics": metrics,
        "seconds_per_question": round(seconds, 5),
        "questions_per_minute": round(60 / seconds, 2) if seconds else None,
        "bytes_per_question": round(sum(p.bytes for p in found) / len(found), 1),
    }


def _differences(
    metric: str, marks: Marks, lines: Sequence[Line[Any]], rows: Registry[Any]
) -> dict[str, Any]:
    """Differences of lines by the same plan, as far as each has one; then the shares of the gaps closed."""
    known = {row.name for row in rows}
    controls = [(row.control, row.name) for row in rows if row.control]
    compared = [(*pair, _ABOUT.get(pair, "")) for pair in controls] + list(_DIFFERENCES)
    out: dict[str, Any] = {}
    for left, right, about in compared:
        if {left, right} <= known:
            plans = [line.plan for line in lines if line.row.name in (left, right)]
            for one, other in dict.fromkeys((rows.line(left, p), rows.line(right, p)) for p in plans):
                columns, groups = marks(metric, one, other)
                if columns:
                    found = asdict(difference(columns[0], columns[1], groups))
                    out[f"{about}{one.name} - {other.name}"] = found | _of(one, columns)
    for ceiling in _CEILINGS:
        for line in (line for line in lines if line.row.name == "fused" and ceiling in known):
            columns, groups = marks(metric, line, rows.line("receiver"), rows.line(ceiling))
            if not columns:
                continue
            closed = gap_closed(columns[0], columns[1], columns[2], groups)
            if not math.isnan(closed.point):
                name = f"gap to {ceiling} closed: ({line.name} - receiver) / ({ceiling} - receiver)"
                out[name] = asdict(closed) | _of(line, columns)
    return out


def _equivalence(
    metric: str, marks: Marks, lines: Sequence[Line[Any]], rows: Registry[Any]
) -> dict[str, Any]:
    """Whether controls of the slice say as little as nothing at all: two one-sided tests against the Receiver alone.

    Equivalent is a control whose difference has a 95 % interval within the margin (so each test is at 2.5 %). The
    interval reaches at least as far as Wilson's for none of as many, since a bootstrap of equal marks has no width.
    """
    out: dict[str, Any] = {}
    for line in (line for line in lines if line.row.control == "fused"):
        columns, groups = marks(metric, line, rows.line("receiver"))
        if columns:
            found, least = difference(columns[0], columns[1], groups), wilson(0, len(columns[0])).high
            low, high = min(found.low, -least), max(found.high, least)
            values = {"point": found.point, "low": low, "high": high, "margin": MARGIN}
            equivalent = low >= -MARGIN and high <= MARGIN
            out[f"{line.name} - receiver"] = values | {"equivalent": equivalent} | _of(line, columns)
    return out


def _of(line: Line[Any], columns: Sequence[Tensor]) -> dict[str, Any]:
    row, plan = line.key
    return {"row": row, "plan": plan, "count": len(columns[0])}


def markdown(report: Mapping[str, Any]) -> str:
    """The table and the differences as Markdown, in percent with 95 % intervals."""
    rows: Sequence[Mapping[str, Any]] = report["rows"]
    metrics = list(dict.fromkeys(metric for row in rows for metric in row["metrics"]))
    named = [f"{metric.replace('_', ' ')} % [95 %]" for metric in metrics]
    lines = [
        f"| row | {' | '.join(named)} | questions | s/question | questions/min | bytes/question |",
        "|---|" + "---|" * (len(metrics) + 4),
    ]
    for row in rows:
        cells = [_shown(row["metrics"][m]) if m in row["metrics"] else "" for m in metrics]
        speed = "" if row["questions_per_minute"] is None else f"{row['questions_per_minute']:.0f}"
        counted = f"{row['questions']}" + ("" if row["complete"] else " (so far)")
        lines.append(
            f"| {row['label']} | {' | '.join(cells)} | {counted} | {row['seconds_per_question']:.3f} | {speed} | "
            f"{row['bytes_per_question']:.0f} |"
        )
    for metric, differences in report["differences"].items():
        if differences:
            lines += ["", f"{metric.replace('_', ' ')}, in points over the same questions:", ""]
            lines += [f"- {name}: {_shown(value)} ({value['count']})" for name, value in differences.items()]
    for metric, found in report["equivalence"].items():
        if found:
            margin = f"±{100 * MARGIN:.0f} points"
            lines += [
                "",
                f"{metric.replace('_', ' ')}, controls against the Receiver alone within {margin}:",
                "",
            ]
            for name, value in found.items():
                said = "equivalent" if value["equivalent"] else "not shown to be equivalent"
                lines.append(f"- {name}: {_shown(value)} ({value['count']}), {said}")
    for metric in metrics if report.get("parts") else ():
        lines += _by_part(report, metric)
    lines += table_of(report.get("confidence") or {})
    if report.get("not_run"):
        lines += ["", "Not run:", ""]
        lines += [f"- {row}: {reason}" for row, reason in report["not_run"].items()]
    if report.get("left_out"):
        lines += ["", "Left out:", ""]
        lines += [f"- {count} questions {reason}" for reason, count in report["left_out"].items()]
    return "\n".join(lines)


def _by_part(report: Mapping[str, Any], metric: str) -> list[str]:
    """One metric of every row, with transfer and the gaps closed: a column a part."""
    parts: Mapping[str, Mapping[str, Any]] = report["parts"]
    heads = (f"{name} ({part['questions']})" for name, part in parts.items())
    lines = [
        "",
        f"{metric.replace('_', ' ')} % [95 %] by part (questions):",
        "",
        f"| | {' | '.join(heads)} |",
    ]
    lines.append("|---|" + "---|" * len(parts))

    def about(name: str) -> bool:
        return name.startswith(("transfer", "gap"))

    values = [
        {row["label"]: row["metrics"].get(metric) for row in part["rows"]}
        | {name: value for name, value in part["differences"].get(metric, {}).items() if about(name)}
        for part in parts.values()
    ]
    for name in dict.fromkeys(name for column in values for name in column):
        cells = (_shown(column[name]) if column.get(name) else "" for column in values)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _shown(value: Mapping[str, Any]) -> str:
    return str(Interval(value["point"], value["low"], value["high"]))
