"""The loss of a pair's training as a picture: of the steps, and of the validation with its controls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fuser.lab.train.log import read_log

_CONTROLS = ("true", "mismatched", "alone", "text", "draft", "mismatched_draft")
_SMOOTHED = 20  # steps that a point of the line is the mean of, at most


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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _smooth(values: Sequence[float]) -> list[float]:
    return [
        sum(part) / len(part)
        for part in (values[max(0, end - _SMOOTHED) : end] for end in range(1, len(values) + 1))
    ]
