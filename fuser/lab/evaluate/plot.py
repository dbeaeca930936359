"""A report as a picture: rows with their intervals, and what a row gets right against what it costs on the wire.

A row has the same colour on both sides; the slice itself is a diamond.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def check(path: Path) -> None:
    """Raise at once what `plot` would raise when all is answered: no matplotlib, or an ending that it does not know."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise RuntimeError("--plot needs matplotlib: pip install 'kvwire[train]'") from error
    if path.suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(f"--plot {path}: its ending must be .png, .svg or .pdf")


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Write a picture of the first metric; the ending of `path` says which kind (.png, .svg, .pdf).

    Raises:
        RuntimeError, ValueError: as `check`; or the report has no rows with a metric.
    """
    check(path)
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    rows = [row for row in report["rows"] if row["metrics"]]
    if not rows:
        raise ValueError("there is nothing to plot: no row has an answer")
    metric = next(iter(rows[0]["metrics"]))
    rows = [row for row in rows if metric in row["metrics"]]
    figure = Figure(figsize=(12, 1.5 + 0.35 * len(rows)), layout="constrained")
    bars, costs = figure.subplots(1, 2, width_ratios=(3, 2))
    for place, row in enumerate(rows):
        value = row["metrics"][metric]
        low, point, high = (100 * value[name] for name in ("low", "point", "high"))
        spread = [[max(0.0, point - low)], [max(0.0, high - point)]]
        look: dict[str, Any] = {
            "color": colormaps["tab20"](place % 20),
            "marker": "D" if row["row"] == "fused" else "o",
            "capsize": 3,
        }
        bars.errorbar(point, place, xerr=spread, **look)
        if row["bytes_per_question"]:
            costs.errorbar(row["bytes_per_question"], point, yerr=spread, **look)
    name = metric.replace("_", " ")
    bars.set_yticks(range(len(rows)), [row["label"] for row in rows])
    bars.invert_yaxis()
    bars.set_xlabel(f"{name}, % with 95 % interval")
    bars.grid(axis="x", alpha=0.3)
    costs.set_xscale("log")
    costs.set_xlabel("bytes a question, cloud to edge")
    costs.set_ylabel(f"{name}, %")
    costs.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
