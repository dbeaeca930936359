"""A measurement of leakage as a page: one table, and the plot of what is given away against bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEADLINE = "content tokens beyond answer and question"


def markdown(report: Mapping[str, Any]) -> str:
    """The table: an attack a line, a plan a column; in brackets the interval, behind the bar the control."""
    slices, data = report["slices"], report["data"]
    lines = [
        f"| {data['questions']} questions over {data['documents']} documents, `{data['asked']}` | "
        + " | ".join(f"{one['kind']}, {one['plan']}" for one in slices)
        + " |",
        "|---|" + "---|" * len(slices),
        "| positions, bytes | "
        + " | ".join(f"{s['positions']:.1f}, {s['bytes']:,.0f}" for s in slices)
        + " |",
        "| transfer, points | " + " | ".join(_shown(s["transfer"] or {}) for s in slices) + " |",
    ]
    for attack in slices[0]["attacks"]:
        lines.append(f"| {attack} | " + " | ".join(_shown(s["attacks"][attack]) for s in slices) + " |")
    failed = [f"{c['kind']}, {c['plan']}: {c['check']}" for c in report["checks"] if not c["passed"]]
    bundle, made = report["bundle"], report["time"][:10]
    verdict = (
        f"**Void**: {'; '.join(failed)}."
        if failed
        else "A planted leak is found, shuffled tokens are not read."
    )
    over = [b for b in report["bounds"] if not b["passed"]]
    verdict += "".join(
        f" **Over its bound** of {b['at_most']:g}: {b['attack']} ({b['kind']}, {b['plan']})." for b in over
    )
    known = f"{data['known_documents']} documents of {', '.join(data['known'])}"
    lines += [
        "",
        f"%, with 95 % intervals over documents; behind the bar what is hit without the slice. {verdict} The attacker "
        f"learnt from {known}. {made}, bundle `{bundle['sha256'][:12]}`, {report['dtype']}.",
    ]
    return "\n".join(lines) + "\n"


def _shown(found: Mapping[str, Any]) -> str:
    if "point" not in found:
        return ""
    tokens = found.get("unit") == "tokens"
    point, low, high = ((1 if tokens else 100) * found[key] for key in ("point", "low", "high"))
    text = f"{point:.1f} [{low:.1f}, {high:.1f}]"
    if "control" in found:
        text += f" \\| {100 * found['control']:.1f}"
    if "own" in found:
        text += f" (own slice {100 * found['own']:.1f})"
    if "bits" in found:
        text += f"; {found['bits']:.1f} bits"
    if "questions a document" in found:
        text += f" ({found['questions a document']:.1f} questions)"
    return text


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Draw what is given away against bytes, a point a plan, with its transfer where that is known.

    Raises:
        RuntimeError, ValueError: as `fuser.lab.evaluate.picture.check`.
    """
    from fuser.lab.evaluate.picture import check, save

    check(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for one in report["slices"]:
        found = one["attacks"][HEADLINE]
        point, low, high = found["point"], found["low"], found["high"]
        spread = [[max(0.0, point - low)], [max(0.0, high - point)]]
        axes.errorbar(one["bytes"], point, yerr=spread, fmt="D", capsize=3)
        worth = one["transfer"]
        told = f", {100 * worth['point']:.0f} points of transfer" if worth else ""
        label = f"{one['kind']}, {one['plan']}{told}"
        axes.annotate(label, (one["bytes"], point), textcoords="offset points", xytext=(6, 4), fontsize=8)
    axes.set_xlabel("payload bytes of a slice, mean")
    axes.set_ylabel(f"{HEADLINE}, a slice")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    save(figure, path)
