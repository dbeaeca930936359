"""Reports as pictures: rows with their intervals, and what is right against what it costs on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fuser.lab.train.log import read_log

_CONTROLS = ("true", "mismatched", "alone", "text", "draft", "mismatched_draft")
_SMOOTHED = 20  # steps that a point of the line is the mean of, at most


def check(path: Path) -> None:
    """Raise at once what drawing would raise later: there is no matplotlib, or it does not know the ending."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise RuntimeError("--plot needs matplotlib: pip install 'kvwire[train]'") from error
    if path.suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(f"--plot {path}: its ending must be .png, .svg or .pdf")


def plot_rows(report: Mapping[str, Any], path: Path) -> None:
    """Draw the first metric of every row, and against bytes; a row has one colour, the slice itself is a diamond.

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
        marker = "D" if row["row"] == "fused" else "o"
        look = {"color": colormaps["tab20"](place % 20), "marker": marker, "capsize": 3}
        (point,), spread = _spread([row["metrics"][metric]])
        bars.errorbar(point, place, xerr=spread, **look)
        if row["bytes_per_question"]:
            costs.errorbar(row["bytes_per_question"], point, yerr=spread, **look)
    name = metric.replace("_", " ")
    bars.set_yticks(range(len(rows)), [row["label"] for row in rows])
    bars.invert_yaxis()
    bars.set_xlabel(f"{name}, % with 95 % interval")
    bars.grid(axis="x", alpha=0.3)
    costs.set_xlabel("bytes a question, cloud to edge")
    costs.set_ylabel(f"{name}, %")
    _save(figure, costs, path)


def plot_reliability(report: Mapping[str, Any], path: Path) -> None:
    """Draw how often answers of a confidence are right, a line for each kind of slice.

    Raises:
        RuntimeError, ValueError: as `check`; or the bundle has no confidences.
    """
    check(path)
    from matplotlib.figure import Figure

    if not report["confidence"]:
        raise ValueError("there is nothing to plot: the bundle tells no confidence of these rows")
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color="0.65", linestyle="--", linewidth=1)
    for name, one in report["confidence"].items():
        at, right = zip(*((each["confidence"], each["right"]) for each in one["bins"]), strict=True)
        axes.plot(at, right, marker="o", label=f"{name}, error {one['calibration_error']:.2f}")
        for each in one["bins"]:
            point = each["confidence"], each["right"]
            axes.annotate(f"{each['count']}", point, textcoords="offset points", xytext=(4, 5), fontsize=7)
    axes.set(xlabel="confidence, mean of a bin", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left", fontsize=8)
    figure.savefig(path)


def plot_plans(report: Mapping[str, Any], path: Path) -> None:
    """Draw a profile: transfer against payload bytes, the plans of the table and the text of the same excerpts.

    Raises:
        RuntimeError, ValueError: as `check`; or no plan is answered yet.
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
    for rows, style, color, name in (
        (chosen, "o-", "C0", "plans of the table"),
        (others, "o", "0.65", "other plans"),
        (rivals, "s", "C3", "text of the same excerpt"),
    ):
        if rows:
            points, spread = _spread([row["transfer"] for row in rows])
            at = [row["mean_bytes"] for row in rows]
            axes.errorbar(at, points, yerr=spread, fmt=style, color=color, capsize=2, label=name)
    for row in chosen:
        point = (row["mean_bytes"], 100 * row["transfer"]["point"])
        axes.annotate(row["label"], point, textcoords="offset points", xytext=(4, 5), fontsize=7)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("payload bytes of a slice, mean")
    axes.set_ylabel("transfer: points over the slice of another question")
    axes.legend(loc="lower right")
    _save(figure, axes, path)


def plot_losses(stages: Sequence[Path], path: Path) -> None:
    """Draw the losses of training stages, whose directories these are, one after another.

    Raises:
        ImportError: there is no matplotlib.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    start = 0
    shown: dict[str, tuple[list[int], list[float]]] = {}
    for stage in stages:
        rows = read_log(stage)
        steps = [row for row in rows if row["stage"] == "step" and row["control"] in ("true", "draft")]
        at, losses = [start + row["step"] for row in steps], [row["loss"] for row in steps]
        axes.plot(at, _smooth(losses), color="0.6", linewidth=1, label=None if start else "steps (mean)")
        for row in (row for row in rows if row["stage"] == "validation"):
            for control in (name for name in _CONTROLS if name in row):
                places, values = shown.setdefault(control, ([], []))
                places.append(start + row["step"])
                values.append(row[control]["loss"])
        start += max((row["step"] for row in rows), default=0)
        axes.axvline(start, color="0.85", linewidth=0.8)
    for name, (places, values) in shown.items():
        axes.plot(places, values, "o-", markersize=3, label=name.replace("_", " "))
    axes.set_xlabel("step")
    axes.set_ylabel("loss of the right answer, nats a token")
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)


def _smooth(values: Sequence[float]) -> list[float]:
    return [
        sum(part) / len(part)
        for part in (values[max(0, end - _SMOOTHED) : end] for end in range(1, len(values) + 1))
    ]


def _spread(values: Sequence[Mapping[str, float]]) -> tuple[list[float], list[list[float]]]:
    """Points in percent, and how far their intervals reach below and above."""
    points = [100 * value["point"] for value in values]
    below = [max(0.0, p - 100 * value["low"]) for p, value in zip(points, values, strict=True)]
    above = [max(0.0, 100 * value["high"] - p) for p, value in zip(points, values, strict=True)]
    return points, [below, above]


def _save(figure: Any, axes: Any, path: Path) -> None:
    """Write a picture whose `axes` have bytes; the ending of `path` says which kind (.png, .svg, .pdf)."""
    axes.set_xscale("log")
    axes.grid(alpha=0.3)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a picture; its folder is made if absent, and the ending of `path` says which kind it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
