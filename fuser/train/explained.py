"""The report of the regression: which share of the Receiver's KV a translation explains, layer by layer."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor


def save_explained(directory: Path, explained: Tensor, held_out: int, trained: int) -> None:
    """Write `regression.json`, `regression.md` and, where matplotlib is installed, `regression.png`.

    Args:
        directory: made if absent.
        explained: (layers, 2) float32, share of variance explained of K and V on held-out text.
        held_out: positions it was measured on. trained: positions of the regression; 0 where a bundle was the start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    key, value = explained.mean(0).tolist()
    layers = [
        {"layer": layer, "key": round(k, 4), "value": round(v, 4)}
        for layer, (k, v) in enumerate(explained.tolist())
    ]
    report = {
        "layers": layers,
        "mean": {"key": round(key, 4), "value": round(value, 4)},
        "held_out_positions": held_out,
        "regression_positions": trained,
    }
    (directory / "regression.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    lines = [
        f"Variance explained on {held_out} held-out positions, "
        + (f"after {trained} positions of text." if trained else "by the bundle that the run starts from."),
        "",
        "| Receiver layer | K | V |",
        "|---|---|---|",
        *(f"| {layer} | {k:.3f} | {v:.3f} |" for layer, (k, v) in enumerate(explained.tolist())),
        f"| mean | {key:.3f} | {value:.3f} |",
    ]
    (directory / "regression.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _plot(directory / "regression.png", explained)


def _plot(path: Path, explained: Tensor) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:  # of the extra `train`; the numbers are in the other two files
        return
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for half, name in enumerate("KV"):
        axes.plot(explained[:, half].tolist(), marker="o", markersize=3, label=name)
    axes.set(
        xlabel="Receiver layer",
        ylabel="share of variance explained",
        ylim=(min(0.0, float(explained.min())), 1),
    )
    axes.legend()
    figure.savefig(path, dpi=150)
