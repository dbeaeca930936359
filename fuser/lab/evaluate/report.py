"""From predictions to the table: every row with its counts and intervals, paired differences, the gap closed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from fuser.bundle.plans import Interval
from fuser.lab.evaluate.prediction import Prediction
from fuser.lab.evaluate.rows import Row
from fuser.lab.interval import difference, gap_closed, mean, wilson

_DIFFERENCES = (
    ("fused", "mismatched", "transfer: "),
    ("fused", "receiver", ""),
    ("fused", "calibrated", ""),
    ("fused", "relay-fair", ""),
    ("fused", "excerpt-text", ""),
    ("fused", "identical", ""),
    ("text", "own", "lost by alignment and selection: "),
    ("own", "fused", "lost by translation: "),
)
CEILINGS = ("text", "sharer")


def summarise(
    predictions: Iterable[Prediction],
    rows: Sequence[Row],
    asked: int,
    groups: Mapping[str, str] | None = None,
    parts: Mapping[str, Collection[str]] | None = None,
) -> dict[str, Any]:
    """The rows that have answers, then differences per metric, then the same for every part; plain JSON values.

    A difference is over the questions that all its rows have answered, and says how many those are.

    Args:
        rows: of the table, in its order; answers of others are only compared with.
        asked: questions of the evaluation; a row with fewer answers is marked as not complete.
        groups: item -> what it shares with others, its document (see `fuser.lab.interval`).
        parts: name -> items that are also reported on alone.
    """
    predictions = list(predictions)
    table = _table(predictions, rows, asked, groups)
    if parts:
        table["parts"] = {
            name: {"questions": len(items)}
            | _table([p for p in predictions if p.item in items], rows, len(items), groups)
            for name, items in parts.items()
        }
    return table


def _table(
    predictions: Sequence[Prediction], rows: Sequence[Row], asked: int, groups: Mapping[str, str] | None
) -> dict[str, Any]:
    found: dict[str, dict[str, Prediction]] = {}
    for prediction in predictions:
        found.setdefault(prediction.row, {})[prediction.item] = prediction
    numbers = {name: number for number, name in enumerate(dict.fromkeys((groups or {}).values()))}
    marks = _Marks(rows, found, {item: numbers[name] for item, name in (groups or {}).items()})
    shown = [_row(row, found[row.name], asked, marks) for row in rows if row.name in found]
    metrics = list(dict.fromkeys(metric for row in shown for metric in row["metrics"]))
    return {"rows": shown, "differences": {metric: _differences(metric, marks) for metric in metrics}}


class _Marks:
    """Marks of several rows over the questions that they share."""

    def __init__(
        self, rows: Sequence[Row], found: Mapping[str, Mapping[str, Prediction]], numbers: Mapping[str, int]
    ) -> None:
        self._rows = rows
        self._found = found
        self._numbers = numbers

    def pairs(self, left: str, right: str) -> Iterator[tuple[str, str]]:
        """Names of rows to compare, by each plan that either has been made with."""
        found = [(row, row.beside(right)) for row in self._rows if row.kind == left]
        found += [(row.beside(left), row) for row in self._rows if row.kind == right]
        return iter(dict.fromkeys((one.name, other.name) for one, other in found))

    def __call__(self, metric: str, *rows: str) -> tuple[list[Tensor], Tensor | None]:
        """(questions,) marks per row, and each question's group; no marks where a row or the metric is not there."""
        if any(row not in self._found for row in rows):
            return [], None
        shared = set.intersection(*(set(self._found[row]) for row in rows))
        items = sorted(i for i in shared if all(metric in self._found[row][i].right for row in rows))
        if not items:
            return [], None
        marks = [torch.tensor([self._found[row][item].right[metric] for item in items]) for row in rows]
        groups = torch.tensor([self._numbers[item] for item in items]) if self._numbers else None
        return marks, groups


def _row(row: Row, found: Mapping[str, Prediction], asked: int, marks: _Marks) -> dict[str, Any]:
    count = len(found)
    seconds = sum(p.seconds for p in found.values()) / count
    metrics: dict[str, Any] = {}
    for metric in dict.fromkeys(name for p in found.values() for name in p.right):
        (column,), groups = marks(metric, row.name)
        total = float(column.double().sum())
        binary = bool(((column == 0) | (column == 1)).all()) and metric != "f1"
        interval = wilson(round(total), len(column)) if binary else mean(column, groups)
        metrics[metric] = {"right": round(total, 4), "count": len(column)} | asdict(interval)
    return {
        "row": row.name,
        "kind": row.kind,
        "label": row.title,
        "questions": count,
        "complete": count == asked,
        "metrics": metrics,
        "seconds_per_question": round(seconds, 5),
        "questions_per_minute": round(60 / seconds, 2) if seconds else None,
        "bytes_per_question": round(sum(p.bytes for p in found.values()) / count, 1),
    }


def _differences(metric: str, marks: _Marks) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for left, right, about in _DIFFERENCES:
        for one, other in marks.pairs(left, right):
            columns, groups = marks(metric, one, other)
            if columns:
                found = asdict(difference(columns[0], columns[1], groups))
                out[f"{about}{one} - {other}"] = found | {"row": one, "count": len(columns[0])}
    for ceiling in CEILINGS:
        for row, _ in marks.pairs("fused", "receiver"):
            columns, groups = marks(metric, row, "receiver", ceiling)
            if not columns:
                continue
            closed = gap_closed(columns[0], columns[1], columns[2], groups)
            if not math.isnan(closed.point):
                out[gap(row, ceiling)] = asdict(closed) | {"row": row, "count": len(columns[0])}
    return out


def gap(row: str, ceiling: str) -> str:
    """What the differences call the share of the gap to a ceiling that a row closes."""
    return f"gap to {ceiling} closed: ({row} - receiver) / ({ceiling} - receiver)"


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
    for metric in metrics if report.get("parts") else ():
        lines += _by_part(report, metric)
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
