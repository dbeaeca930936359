"""The tables of a run of `kvwire chaos`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from ops.chaos.outcome import VIOLATIONS


def markdown(report: Mapping[str, Any]) -> str:
    """A table for each part that was run."""
    lines: list[str] = []
    for part, told in report["results"].items():
        lines += [f"**{part}**, seed {report['seed']}", "", *_TABLES.get(part, _asked)(told), ""]
    return "\n".join(lines).rstrip()


def _counted(told: Mapping[str, Any], taken: str) -> Iterator[str]:
    yield f"| | tried | refused by name | {taken} | wrong | hangs | crashes | refused as |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, row in _rows(told):
        ends = row["endings"]
        never = " | ".join(f"{ends[end]:,}" for end in VIOLATIONS)
        yield f"| {name} | {row['faults']:,} | {ends['detected']:,} | {ends['fused']:,} | {never} | {_reasons(row)} |"
    if "lies" in told:
        lies = told["lies"]
        yield ""
        yield f"Lies of who holds the cloud's key: {lies['believed']:,} of {lies['told']:,} believed."


def _asked(told: Mapping[str, Any]) -> Iterator[str]:
    heads = ("", "faults", "fused", "alone", "error", *VIOLATIONS, "p50, p99 s", "back p50, p99 s", "reasons")
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for name, row in _rows(told):
        ends = row["endings"]
        cells = [f"{ends[end]:,}" for end in ("fused", "alone", "failed", *VIOLATIONS)]
        cells += [_seconds(row["seconds"]), _seconds(row["recovery_s"]), _reasons(row)]
        yield f"| {name} | {row['faults']:,} | " + " | ".join(cells) + " |"


def _load(told: Mapping[str, Any]) -> Iterator[str]:
    yield "| callers | answered | refused | answers/s | goodput/s | p50 ms | p99 ms |"
    yield "|---|---|---|---|---|---|---|"
    for row in told["callers"]:
        yield (
            f"| {row['callers']} | {row['answered']:,} | {row['refused']:,} | {row['per_s']:.1f} | "
            f"{row['good_per_s']:.1f} | {row['ms']['p50']:.0f} | {row['ms']['p99']:.0f} |"
        )
    yield ""
    yield "| the other tenant has | one asks at a time: answered | p50 ms | p99 ms |"
    yield "|---|---|---|---|"
    for row in told["fairness"]:
        times = f"{row['ms']['p50']:.0f} | {row['ms']['p99']:.0f}"
        yield f"| {row['others']} callers | {row['answered']} of {row['asked']} | {times} |"


def _soak(told: Mapping[str, Any]) -> Iterator[str]:
    fused = told["all"]["endings"]["fused"]
    ended = told["replicas_ended"]
    ran = f"{told['all']['faults']:,} requests in {told['seconds']:.0f} s"
    yield f"{ran}; {fused:,} fused and bit-equal; {ended} replicas ended."
    yield ""
    yield "| | after warm-up | at the end | change |"
    yield "|---|---|---|---|"
    for name, (first, last) in told["resources"].items():
        change = f"{100 * (last - first) / first:+.1f} %" if first else f"{last - first:+g}"
        yield f"| {name} | {first:,.1f} | {last:,.1f} | {change} |"


_TABLES: Final[Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]]] = {
    "frames": partial(_counted, taken="taken, bit-equal"),
    "fuzz": partial(_counted, taken="taken, being valid"),
    "load": _load,
    "soak": _soak,
}


def _rows(told: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from told["rows"].items()
    yield "**all**", told["all"]


def _reasons(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in row["reasons"].items())


def _seconds(quantiles: Mapping[str, float] | None) -> str:
    return "" if quantiles is None else f"{quantiles['p50']:.2f}, {quantiles['p99']:.2f}"
