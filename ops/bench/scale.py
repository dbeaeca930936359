"""`kvwire bench scale`: how many replicas many questions over many documents need, by a model and its simulation.

Nothing of that size is run. docs/scale.md has every assumption.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from ops.bench.prefixes import COLD, NEXT, STORED, WAYS
from ops.bench.queues import ANY, OWN, SPILL, Scale, simulate, waiting


def read_report(path: Path, tokens: int) -> dict[str, Any]:
    """A report of `bench prefixes` that service times over this number of tokens follow from.

    Raises:
        ValueError: it is none. OSError: it cannot be read.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not (report["bench"] == "prefixes" and report["date"] and report["results"]["token_bytes"] >= 1):
            raise ValueError("of another benchmark")
        lengths = {row["tokens"] for row in report["results"]["rows"]}
        seconds, cv = fit(report, tokens) if len(lengths) > 1 else ({}, 0.0)
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{path} is no report of `kvwire bench prefixes`") from error
    if not (min(seconds.values(), default=0.0) > 0 and math.isfinite(sum(seconds.values(), cv))):
        raise ValueError(
            f"{path}: no times over {tokens} tokens follow from {len(lengths)} lengths; measure others"
        )
    return report


def fit(report: Mapping[str, Any], tokens: int) -> tuple[dict[str, float], float]:
    """Seconds of each way over this number of tokens, by a line through its medians; their coefficient of variation."""
    rows, cells = report["results"]["rows"], report["results"]["cells"]
    lengths = [row["tokens"] for row in rows]
    lines = {way: np.polyfit(lengths, [row["median_s"][way] for row in rows], 1) for way in WAYS}
    medians = {row["tokens"]: row["median_s"] for row in rows}
    spread = np.std([np.log(c["seconds"][way] / medians[c["tokens"]][way]) for c in cells for way in WAYS])
    return {way: float(np.polyval(lines[way], tokens)) for way in WAYS}, math.sqrt(math.expm1(spread**2))


def measure(scale: Scale, prefixes: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Waits by model and simulation at each load, and what each carrier costs; of a report of `bench prefixes`."""
    seconds, cv = fit(prefixes, scale.tokens)
    document_bytes = scale.tokens * prefixes["results"]["token_bytes"]
    room = scale.memory_bytes // document_bytes
    rows: list[dict[str, Any]] = []
    for load in progress.track(scale.loads, description="simulating"):
        servers = math.ceil(scale.questions_s * seconds[STORED] / load)
        model = waiting(servers, scale.questions_s, seconds[STORED], cv)
        alone = waiting(1, scale.questions_s / servers, seconds[STORED], cv)
        for way in (ANY, OWN, SPILL):
            found = simulate(scale, servers, way, (seconds[NEXT], seconds[STORED]), cv, room)
            rows.append({"replicas": servers, "way": way, "model_s": alone if way == OWN else model, **found})
    work = {
        "slice, its document read before": (seconds[STORED], scale.slice_bytes),
        "slice, its document read each time": (seconds[COLD], scale.slice_bytes),
        "text relay": (scale.relay * seconds[NEXT], scale.text_bytes),
        "whole cache of the document": (0.0, document_bytes),
    }
    carriers = [
        {
            "carrier": name,
            "seconds": spent,
            "bytes": size,
            "gbit_s": 8e-9 * size * scale.questions_s,
            "replicas": [math.ceil(scale.questions_s * spent / load) for load in scale.loads],
        }
        for name, (spent, size) in work.items()
    ]
    disk = scale.documents * document_bytes
    return {
        "seconds": seconds,
        "cv": cv,
        "disk_bytes": disk,
        "room": room,
        "rows": rows,
        "carriers": carriers,
    }


def markdown(report: Mapping[str, Any]) -> str:
    """Times in those of a next question."""
    found, unit = report["results"], report["results"]["seconds"][NEXT]
    told = ", ".join(f"{way} {found['seconds'][way] / unit:.2f}" for way in WAYS)
    loads = [f"replicas at {load:g}" for load in report["settings"]["loads"]]
    lines = [
        f"Service times, a next question's being 1: {told}; coefficient of variation {found['cv']:.2f}. K and V of all "
        f"documents: {found['disk_bytes'] / 1e12:.1f} TB; a replica's memory has room for {found['room']:,} of them.",
        *_table("replicas", "asked", "mean wait, model", "simulated", "99th percentile", "load", "in memory"),
    ]
    for row in found["rows"]:
        waits = " | ".join(f"{row[key] / unit:.3f}" for key in ("model_s", "wait_s", "p99_s"))
        lines.append(
            f"| {row['replicas']:,} | {row['way']} | {waits} | {row['load']:.2f} | {row['memory']:.3f} |"
        )
    lines += _table("carrier", "Sharer's time", *loads, "bytes a question", "Gbit/s in all")
    for row in found["carriers"]:
        counts = " | ".join(f"{count:,}" for count in row["replicas"])
        cells = f"{row['seconds'] / unit:.2f} | {counts} | {row['bytes']:,} | {row['gbit_s']:.2f}"
        lines.append(f"| {row['carrier']} | {cells} |")
    if found.get("serve"):
        lines += _table(
            "replicas of Ray Serve", "questions", "load", "mean wait", "M/G/c", "a queue for each"
        )
    for row in found.get("serve", ()):
        waits = " | ".join(f"{row[key]:.2f}" for key in ("wait_s", "shared_s", "apart_s"))
        lines.append(f"| {row['replicas']} | {row['questions']} | {row['load']:.2f} | {waits} |")
    return "\n".join(lines)


def _table(*heads: str) -> list[str]:
    """Where a table begins."""
    return ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
