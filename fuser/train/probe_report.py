"""What `fuser.train.probe` found, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def markdown(report: Mapping[str, Any]) -> str:
    """Two tables: by code and text read, and by Sharer layer."""
    probes = report["probes"]
    lines = [
        f"Variance of the Receiver's KV explained in closed form on {report['held_out_positions']} held-out positions.",
        "",
        "| maps | positions of text | code | numbers | K | V |",
        "|---|---|---|---|---|---|",
    ]
    for one in probes:
        if one["sharer_layer"] is None:
            maps = "joint" if one["maps"] == "joint" else f"per layer, from {one['reach']}"
            head = f"| {maps} | {one['positions']:,} | {one['code_dim']} | {one['numbers']:,} "
            lines.append(f"{head}| {one['key']:.3f} | {one['value']:.3f} |")
    lines += ["", "| Sharer layer read alone | K | V |", "|---|---|---|"]
    lines += [
        f"| {one['sharer_layer']} | {one['key']:.3f} | {one['value']:.3f} |"
        for one in probes
        if one["sharer_layer"] is not None
    ]
    return "\n".join(lines)


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Explained variance against the size of the code, and by the one Sharer layer that is read.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    by_code, by_layer = figure.subplots(1, 2, sharey=True)
    whole = [one for one in report["probes"] if one["sharer_layer"] is None]
    for count in sorted({one["positions"] for one in whole}):
        for half, style in (("key", "-"), ("value", "--")):
            own = [one for one in whole if one["maps"] == "joint" and one["positions"] == count]
            by_code.plot(
                [one["code_dim"] for one in own],
                [one[half] for one in own],
                style,
                marker="o",
                markersize=3,
                label=f"{half[0].upper()}, joint, {count:,} positions",
            )
    for half, marker in (("key", "^"), ("value", "v")):
        own = [one for one in whole if one["maps"] == "layer"]
        if own:
            label = f"{half[0].upper()}, per layer"
            by_code.plot([one["code_dim"] for one in own], [one[half] for one in own], marker, label=label)
        single = [one for one in report["probes"] if one["sharer_layer"] is not None]
        layers = [one["sharer_layer"] for one in single]
        by_layer.plot(layers, [one[half] for one in single], marker="o", markersize=3, label=half[0].upper())
    by_code.set(xscale="log", xlabel="numbers in a code", ylabel="share of variance explained", ylim=(0, 1))
    by_layer.set(xlabel="the one Sharer layer that is read")
    by_code.legend(fontsize=7)
    by_layer.legend(fontsize=7)
    figure.savefig(path, dpi=150)
