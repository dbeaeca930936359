"""The curve: what a slice is worth against its positions and its bytes, beside the text of the same excerpts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from fuser.bundle.plans import Interval
from fuser.heads.selection import SelectionConfig
from fuser.lab.evaluate.plans import selected_by
from fuser.lab.evaluate.plot import check
from fuser.lab.evaluate.report import CEILINGS, gap
from fuser.lab.evaluate.rows import DOCUMENT_ROWS, SELECTED, SENT, Row
from kvwire.plan import Plan

_LEVELS = ("receiver", "text", "sharer")  # rows without a plan, shown as lines across

_SHARES = {f"gap to {ceiling} closed": ceiling for ceiling in CEILINGS}


def curve(table: Mapping[str, Any], selection: SelectionConfig, plans: Sequence[Plan]) -> dict[str, Any]:
    """A point for each plan, under the name `curve`; nothing where there is one plan alone.

    Args:
        table: from `summarise`.
        selection: the bundle's own.
    """
    if len(plans) < 2:
        return {}
    rows = {row["row"]: row for row in table["rows"]}
    points: list[dict[str, Any]] = []
    for plan in plans:
        fused = Row("fused", plan)
        names = {kind: fused.beside(kind).name for kind in (*SENT, *SELECTED)}
        wanted = {
            "transfer": f"transfer: {fused.name} - {names['mismatched']}",
            **{share: gap(fused.name, ceiling) for share, ceiling in _SHARES.items()},
        }
        points.append(
            {
                "positions": selected_by(plan, selection).positions,
                "plan": str(replace(plan, positions=0)),
                "rows": {row: rows[name] for row, name in names.items() if name in rows},
                "differences": {
                    metric: {short: found[long] for short, long in wanted.items() if long in found}
                    for metric, found in table["differences"].items()
                },
            }
        )
    return {"curve": points}


def curve_markdown(report: Mapping[str, Any]) -> str:
    """What follows the report's table: a table a metric, a line a plan; empty where there is no curve."""
    lines = [""]
    points: Sequence[Mapping[str, Any]] = report.get("curve", ())
    for metric in dict.fromkeys(metric for point in points for metric in point["differences"]):
        rows = [row for row in (*SENT, *SELECTED) if any(row in point["rows"] for point in points)]
        shares = list(dict.fromkeys(name for point in points for name in point["differences"][metric]))
        lines += [
            "",
            f"{metric.replace('_', ' ')} by positions and plan, % [95 %]; in brackets bytes a question:",
            "",
            f"| positions | plan | {' | '.join([DOCUMENT_ROWS[row] for row in rows] + shares)} |",
            "|---|---|" + "---|" * (len(rows) + len(shares)),
        ]
        for point in points:
            cells = [_cell(point["rows"].get(row), metric) for row in rows]
            cells += [_shown(point["differences"][metric].get(share)) for share in shares]
            lines.append(f"| {point['positions']} | {point['plan']} | {' | '.join(cells)} |")
    return "\n".join(lines) if points else ""


def plot_curve(report: Mapping[str, Any], path: Path) -> None:
    """Draw every metric, and the gap closed, against positions and against bytes; the ending of `path` says as what.

    Raises:
        RuntimeError, ValueError: as `fuser.lab.evaluate.plot.check`; or the report has no curve.
    """
    check(path)
    points: Sequence[Mapping[str, Any]] = report.get("curve", ())
    metrics = list(dict.fromkeys(metric for point in points for metric in point["differences"]))
    if not metrics:
        raise ValueError("there is no curve to draw: give several --positions or --plan, and time to answer")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6 * (len(metrics) + 1)), layout="constrained")
    grid = figure.subplots(len(metrics) + 1, 2, squeeze=False)
    for (left, right), metric in zip(grid, metrics, strict=False):
        for place, (name, line) in enumerate(_lines(points).items()):
            values = [point["rows"][name[0]]["metrics"].get(metric) for point in line]
            sizes = [point["rows"][name[0]]["bytes_per_question"] for point in line]
            _draw(left, [point["positions"] for point in line], values, ", ".join(name), place)
            _draw(right, sizes, values, ", ".join(name), place)
        for row in report["rows"]:
            if row["row"] in _LEVELS and metric in row["metrics"]:
                height = 100 * row["metrics"][metric]["point"]
                left.axhline(height, linestyle=":", color="grey")
                left.text(1.0, height, row["row"], transform=left.get_yaxis_transform())
        for axes in (left, right):
            axes.set_ylabel(f"{metric.replace('_', ' ')}, %")
    fused = [(name, line) for name, line in _lines(points).items() if name[0] == "fused"]
    for place, ((share, (name, line))) in enumerate(product(_SHARES, fused)):
        values = [point["differences"][metrics[0]].get(share) for point in line]
        sizes = [point["rows"]["fused"]["bytes_per_question"] for point in line]
        label = ", ".join((share, *name[1:]))
        _draw(grid[-1][0], [point["positions"] for point in line], values, label, place)
        _draw(grid[-1][1], sizes, values, label, place)
    for axes in grid[-1]:
        axes.set_ylabel(f"gap closed, % ({metrics[0].replace('_', ' ')})")
        axes.set_ylim(-20, 150)  # of few questions the intervals of a ratio may reach far beyond
    for left, right in grid:
        left.set_xlabel("document positions")
        right.set_xlabel("bytes a question, cloud to edge")
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.grid(alpha=0.3)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _lines(points: Sequence[Mapping[str, Any]]) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    """(row, plan) -> its points; rows without a plan once for every number of positions."""
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for point in points:
        for row in point["rows"]:
            name = (row, point["plan"]) if row in SENT else (row,)
            line = found.setdefault(name, [])
            if all(point["positions"] != other["positions"] for other in line):
                line.append(point)
    return found


def _draw(axes: Any, places: Sequence[float], values: Sequence[Any], label: str, colour: int) -> None:
    """A line with 95 % bars; points without a value, or at no bytes, are not there."""
    kept = [(at, value) for at, value in zip(places, values, strict=True) if value is not None and at > 0]
    if not kept:
        return
    point = [100 * value["point"] for _, value in kept]
    spread = [
        [max(0.0, p - 100 * value["low"]) for p, (_, value) in zip(point, kept, strict=True)],
        [max(0.0, 100 * value["high"] - p) for p, (_, value) in zip(point, kept, strict=True)],
    ]
    axes.errorbar(
        [at for at, _ in kept], point, yerr=spread, marker="o", capsize=3, label=label, color=f"C{colour}"
    )


def _cell(row: Mapping[str, Any] | None, metric: str) -> str:
    if row is None or metric not in row["metrics"]:
        return ""
    size = f" ({row['bytes_per_question']:.0f})" if row["bytes_per_question"] else ""
    return _shown(row["metrics"][metric]) + size


def _shown(value: Mapping[str, Any] | None) -> str:
    return "" if value is None else str(Interval(value["point"], value["low"], value["high"]))
