"""`kvwire bench prefixes`: the Sharer's part of a first question with its document read before, and without."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.progress import Progress

from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from ops.bench.ratio import ratio_of, told

if TYPE_CHECKING:
    from fuser import Sharer, StoredText

COLD: Final = "first, not read"
STORED: Final = "first, read before"
NEXT: Final = "next question"
WAYS: Final = (COLD, STORED, NEXT)
_QUESTIONS: Final = ("Who keeps the spare key?", "Where is it?")


@dataclass(frozen=True, slots=True)
class PrefixBench:
    """What to measure: documents of about so many tokens, each asked about in `rounds` rounds of all ways."""

    sharer: Path
    bundle: Path
    kind: SliceKind
    tokens: tuple[int, ...]
    rounds: int
    device: Any = "auto"
    dtype: Any = "auto"


def measure(
    bench: PrefixBench, folder: Path, progress: Progress, check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Seconds to a whole slice in this process, the ways in turns, another order in each round.

    What the first question waits for is the Sharer's part: reading the document, or its file, then the question. The
    file was just written, so the system has it in memory.
    """
    from fuser.kv.prefix_files import PrefixFiles, StoredText
    from fuser.pair import load_sharers

    bar = progress.add_task("loading the Sharer", total=len(bench.tokens) * bench.rounds * len(WAYS))
    files = PrefixFiles(folder / "prefixes", 1 << 40)
    (sharer,) = load_sharers(
        bench.sharer,
        [bench.bundle],
        device=bench.device,
        dtype=bench.dtype,
        prefix_cache_bytes=1 << 40,
        prefix_files=files,
    )
    rng = random.Random(1)
    cells: list[dict[str, Any]] = []
    progress.update(bar, description="asking")
    for wanted in bench.tokens:
        text = _text(sharer, wanted)
        stored = StoredText("bench", str(wanted), "0" * 32)
        length, before = sharer.prompt(_asked(text, _QUESTIONS[0])).prefix, files.bytes
        _seconds(sharer, bench.kind, text, 0, stored)  # kernels are there, and the file is
        size = files.bytes - before
        for _ in range(bench.rounds):
            seconds: dict[str, float] = {}
            for way in rng.sample(WAYS, len(WAYS)):
                check()
                seconds[way] = _timed(sharer, bench.kind, text, way, stored)
                progress.advance(bar)
            cells.append({"tokens": length, "seconds": seconds, "disk_bytes": size})
    return summary(cells, sharer.bytes_of(1))


def summary(cells: Sequence[Mapping[str, Any]], token_bytes: int) -> dict[str, Any]:
    """Medians of each way by length, and of the ratios to the next question in the same round."""
    rows = []
    for tokens in sorted({cell["tokens"] for cell in cells}):
        rounds = [cell["seconds"] for cell in cells if cell["tokens"] == tokens]
        rows.append(
            {
                "tokens": tokens,
                "rounds": len(rounds),
                "disk_bytes": next(cell["disk_bytes"] for cell in cells if cell["tokens"] == tokens),
                "median_s": {way: statistics.median(one[way] for one in rounds) for way in WAYS},
                "to_next": {
                    way: ratio_of([(one[way], one[NEXT]) for one in rounds]) for way in (COLD, STORED)
                },
            }
        )
    for row in rows:  # of one run: how much longer the way takes than over the shortest document
        row["to_shortest"] = {way: row["median_s"][way] / rows[0]["median_s"][way] for way in WAYS}
    return {"rows": rows, "token_bytes": token_bytes, "cells": list(cells)}


def markdown(report: Mapping[str, Any]) -> str:
    """A table of a report: ratios alone, as the machine may do something else."""
    results = report["results"]
    lines = [
        f"K and V of a token: {results['token_bytes']:,} bytes on disk.",
        "",
        "| tokens | rounds | not read : next (95 %) | read before : next (95 %) | " + " | ".join(WAYS) + " |",
        "|---" * (4 + len(WAYS)) + "|",
    ]
    for row in results["rows"]:
        to_next = " | ".join(told(row["to_next"][way]) for way in (COLD, STORED))
        to_shortest = " | ".join(f"{row['to_shortest'][way]:.2f}" for way in WAYS)
        lines.append(f"| {row['tokens']:,} | {row['rounds']} | {to_next} | {to_shortest} |")
    return "\n".join((*lines, "", "The last three columns: to the same way over the shortest document."))


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Time to a slice against the document's length, as multiples of the next question over the shortest one."""
    from matplotlib.figure import Figure

    rows = report["results"]["rows"]
    unit = rows[0]["median_s"][NEXT]
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    for way in WAYS:
        panel.plot(
            [row["tokens"] for row in rows],
            [row["median_s"][way] / unit for row in rows],
            marker=".",
            label=way,
        )
    panel.set(
        xscale="log", yscale="log", xlabel="document tokens", ylabel="time to a slice (next, shortest = 1)"
    )
    panel.grid(alpha=0.3, which="both")
    panel.legend()
    figure.savefig(path, dpi=150)


def _timed(sharer: Sharer, kind: SliceKind, text: str, way: str, stored: StoredText) -> float:
    """Seconds of one way; what the way has to find was made by the one before the first round, or is made here."""
    if way == NEXT:
        _seconds(sharer, kind, text, 0, stored)
        return _seconds(sharer, kind, text, 1, stored)
    sharer.forget(stored.owner)
    found = _seconds(sharer, kind, text, 1, stored if way == STORED else None)
    sharer.forget(stored.owner)
    return found


def _seconds(sharer: Sharer, kind: SliceKind, text: str, question: int, stored: StoredText | None) -> float:
    from fuser import Caller

    began = time.monotonic()
    layout = sharer.layout(_asked(text, _QUESTIONS[question]), kind, 16)
    sharer.run(layout, lambda *_: None, Caller(owner="bench", stored=stored))
    seconds = time.monotonic() - began
    sharer.settle()
    return seconds


def _asked(text: str, question: str) -> tuple[Section, Section]:
    return (
        Section(Role.DOCUMENT, Visibility.CLOUD, text=text),
        Section(Role.QUESTION, Visibility.SHARED, text=question),
    )


def _text(sharer: Sharer, tokens: int) -> str:
    """Sentences that differ, of about so many tokens."""
    lines: list[str] = []
    counted = 0
    for line in _lines():
        counted += len(sharer.tokenizer(line, add_special_tokens=False)["input_ids"])
        if counted > tokens and lines:
            break
        lines.append(line)
    return "".join(lines)


def _lines() -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"Sample {number} is weighed, stored in box {number * 7 % 101} and kept for {number % 9 + 2} years.\n"
