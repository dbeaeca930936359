"""A profile as a picture: transfer against payload bytes, the text of the same excerpts as rival, the front drawn"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fuser.lab.evaluate.plot import check


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Write a picture; the ending of `path` says which kind (.png, .svg, .pdf).

    Raises:
        RuntimeError, ValueError: as `fuser.lab.evaluate.plot.check`; or no plan is answered yet.
    """
    check(path)
    from matplotlib.figure import Figure

    plans = sorted(report["plans"], key=lambda row: row["mean_bytes"])
    if not plans:
        raise ValueError("there is nothing to plot: no plan is answered by every question yet")
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    chosen = [row for row in plans if row["label"] in set(report["table"])]
    others = [row for row in plans if row not in chosen]
    rivals = [row for row in report["rivals"] if row["transfer"] is not None]
    _points(axes, chosen, "o", "C0", "plans of the table")
    axes.plot([row["mean_bytes"] for row in chosen], _percent(chosen, "point"), color="C0", linewidth=1)
    _points(axes, others, "o", "0.65", "other plans")
    _points(axes, rivals, "s", "C3", "text of the same excerpt")
    for row in chosen:
        at = (row["mean_bytes"], 100 * row["transfer"]["point"])
        axes.annotate(row["label"], at, textcoords="offset points", xytext=(4, 5), fontsize=7)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("payload bytes of a slice, mean")
    axes.set_ylabel("transfer: points over the slice of another question")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _points(axes: Any, rows: Sequence[Mapping[str, Any]], marker: str, color: str, name: str) -> None:
    if not rows:
        return
    points, lows, highs = (_percent(rows, key) for key in ("point", "low", "high"))
    below = [max(0.0, point - low) for point, low in zip(points, lows, strict=True)]
    above = [max(0.0, high - point) for point, high in zip(points, highs, strict=True)]
    at = [row["mean_bytes"] for row in rows]
    axes.errorbar(
        at, points, yerr=[below, above], fmt=marker, color=color, capsize=2, label=name, elinewidth=0.8
    )


def _percent(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [100 * row["transfer"][key] for row in rows]
