"""What `kvwire bench link` found: medians a cell, beside text, where a way overtakes text, a table, a picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ops.bench.ways import ALONE, RELAY, TEXTS

_GREYS: Final = {ALONE: "grey", RELAY: "black"}
METRICS: Final = {"first_s": "time to the first token", "total_s": "time to the full answer"}


def summarise(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Plain JSON values; links and ways in the order of the records.

    Returns:
        "records" as they came; "cells": a way at a rate and a round trip, with median, least and most of its times over
        the questions, its median bytes, how many answers came as wanted and were right, and its median times as a share
        of the text relay's and of the Receiver's alone in the same cell; "crossovers" as `crossover` finds them.
    """
    found: dict[tuple[float, float], dict[str, list[Mapping[str, Any]]]] = {}
    for record in records:
        link = found.setdefault((record["rtt_ms"], record["rate_mbit"]), {})
        link.setdefault(record["way"], []).append(record)
    cells: list[dict[str, Any]] = []
    for (rtt, rate), ways in found.items():
        made = {way: _cell(rows) for way, rows in ways.items()}
        cells += [
            {"rate_mbit": rate, "rtt_ms": rtt, "way": way} | cell | _shares(cell, made)
            for way, cell in made.items()
        ]
    crossovers = [
        {"way": way, "rtt_ms": rtt, "metric": metric} | crossover(_ratios(cells, way, rtt, metric))
        for way, rtt in dict.fromkeys((cell["way"], cell["rtt_ms"]) for cell in cells)
        if way not in (ALONE, *TEXTS)
        for metric in METRICS
        if _ratios(cells, way, rtt, metric)
    ]
    return {"records": [dict(r) for r in records], "cells": cells, "crossovers": crossovers}


def crossover(ratios: Mapping[float, float]) -> dict[str, Any]:
    """From which rate on a way is faster than text, between measured rates by the logarithms of rate and ratio.

    Args:
        ratios: rate in Mbit/s -> the way's time as a share of text's.

    Returns:
        "faster": "always", "never", or "from" with "rate_mbit"; always and never are of the measured rates. Where the
        ratio crosses 1 more than once, the last crossing counts.
    """
    points = sorted(ratios.items())
    last_slow = max((i for i, (_, ratio) in enumerate(points) if ratio >= 1), default=None)
    if last_slow is None:
        return {"faster": "always", "rate_mbit": None}
    if last_slow == len(points) - 1:
        return {"faster": "never", "rate_mbit": None}
    (slow, above), (fast, below) = points[last_slow], points[last_slow + 1]
    share = math.log(above) / (math.log(above) - math.log(below))
    return {"faster": "from", "rate_mbit": round(slow * (fast / slow) ** share, 3)}


def markdown(report: Mapping[str, Any]) -> str:
    """A table a metric and round trip, a line a way, a column a rate; then crossovers, then shares of the link used."""
    results = report["results"]
    lines: list[str] = []
    cells = {(c["rtt_ms"], c["rate_mbit"], c["way"]): c for c in results["cells"]}
    rtts, rates, ways = (list(dict.fromkeys(key[i] for key in cells)) for i in range(3))
    for rtt in rtts:
        for metric, name in METRICS.items():
            lines += [
                f"Round trip {rtt:g} ms: {name}, median seconds (share of the text relay's)",
                "",
                f"| way | bytes down | right | {' | '.join(f'{rate:g} Mbit/s' for rate in rates)} |",
                "|---|" + "---|" * (2 + len(rates)),
            ]
            for way in ways:
                row = [cells[rtt, rate, way] for rate in rates]
                times = [f"{c[metric]['median']:.3f}{_share(c, metric)}" for c in row]
                right = f"{row[0]['right']}/{row[0]['questions']}"
                lines.append(
                    f"| {way}{_fell(row)} | {row[0]['bytes_down']:.0f} | {right} | {' | '.join(times)} |"
                )
            lines.append("")
    if results["crossovers"]:
        lines += [*_crossing_table(results["crossovers"]), ""]
    if results.get("utilisation"):
        from ops.bench.utilisation import markdown as used

        lines += [used(results["utilisation"])]
    return "\n".join(lines).rstrip()


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Time against rate, both logarithmic: a column a round trip, a row a metric; a cross where a way passes text."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    results = report["results"]
    cells = results["cells"]
    rates, rtts, ways = (list(dict.fromkeys(c[key] for c in cells)) for key in ("rate_mbit", "rtt_ms", "way"))
    shade = colormaps["tab20"]
    colours = {way: _GREYS.get(way, shade(number % shade.N)) for number, way in enumerate(ways)}
    figure = Figure(figsize=(1 + 4 * len(rtts), 8), layout="constrained")
    axes = figure.subplots(len(METRICS), len(rtts), sharex=True, sharey="row", squeeze=False)
    for line, (metric, name) in enumerate(METRICS.items()):
        for column, rtt in enumerate(rtts):
            panel = axes[line][column]
            for way in ways:
                mine = sorted(
                    (c for c in cells if c["rtt_ms"] == rtt and c["way"] == way), key=lambda c: c["rate_mbit"]
                )
                where, times = ([c["rate_mbit"] for c in mine], [c[metric] for c in mine])
                style = "--" if way in _GREYS else "-"
                panel.plot(
                    where, [t["median"] for t in times], style, marker=".", color=colours[way], label=way
                )
                low, high = ([t[end] for t in times] for end in ("min", "max"))
                panel.fill_between(where, low, high, color=colours[way], alpha=0.08, linewidth=0)
            for way, rate, seconds in _crossings(results, rtt, metric):
                panel.plot([rate], [seconds], "X", color=colours[way], markersize=9)
            panel.set(xscale="log", yscale="log", title=f"round trip {rtt:g} ms")
            panel.set_xticks(rates, [f"{rate:g}" for rate in rates])
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.yaxis.set_major_formatter("{x:g}")
            panel.grid(alpha=0.3, which="both")
        axes[line][0].set_ylabel(f"{name}, s")
    for panel in axes[-1]:
        panel.set_xlabel("link, Mbit/s")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(rtts), len(labels)))
    figure.savefig(path, dpi=150)


def _cell(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    times = {
        metric: {
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
        }
        for metric in METRICS
        if (values := [row[metric] for row in rows])
    }
    sizes = {
        name: statistics.median(row[name] for row in rows)
        for name in ("bytes_down", "bytes_up", "payload_bytes", "tokens")
    }
    return {
        "questions": len(rows),
        "as_wanted": sum(row["as_wanted"] for row in rows),
        "right": sum(row["right"] for row in rows),
        **times,
        **sizes,
    }


def _shares(cell: Mapping[str, Any], cells: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Median times as a share of the baselines' over the same link."""
    return {
        f"{metric}_of_{name}": round(cell[metric]["median"] / cells[baseline][metric]["median"], 4)
        for metric in METRICS
        for name, baseline in (("text", RELAY), ("alone", ALONE))
        if baseline in cells
    }


def _ratios(cells: Sequence[Mapping[str, Any]], way: str, rtt: float, metric: str) -> dict[float, float]:
    key = f"{metric}_of_text"
    return {c["rate_mbit"]: c[key] for c in cells if c["way"] == way and c["rtt_ms"] == rtt and key in c}


def _crossings(results: Mapping[str, Any], rtt: float, metric: str) -> list[tuple[str, float, float]]:
    """Ways that overtake text, with the rate and text's seconds at the nearest rate measured."""
    text = {
        c["rate_mbit"]: c[metric]["median"]
        for c in results["cells"]
        if c["way"] == RELAY and c["rtt_ms"] == rtt
    }
    return [
        (
            one["way"],
            one["rate_mbit"],
            text[min(text, key=lambda rate: abs(math.log(rate / one["rate_mbit"])))],
        )
        for one in results["crossovers"]
        if (one["rtt_ms"], one["metric"], one["faster"]) == (rtt, metric, "from")
    ]


def _share(cell: Mapping[str, Any], metric: str) -> str:
    key = f"{metric}_of_text"
    return f" ({cell[key]:.2f})" if key in cell else ""


def _fell(row: Sequence[Mapping[str, Any]]) -> str:
    """How many answers came without the slice they were asked with."""
    fell = sum(cell["questions"] - cell["as_wanted"] for cell in row)
    return f" ({fell} without a slice)" if fell else ""


def _crossing_table(crossovers: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a way, a column a metric and round trip."""
    found = {(one["way"], one["metric"], one["rtt_ms"]): one for one in crossovers}
    columns = list(dict.fromkeys(key[1:] for key in found))
    heads = [f"{METRICS[metric]}, {rtt:g} ms" for metric, rtt in columns]
    lines = [
        "Faster than the text relay, by median and of these rates (a round trip a column):",
        "",
        f"| way | {' | '.join(heads)} |",
        "|---|" + "---|" * len(columns),
    ]
    for way in dict.fromkeys(key[0] for key in found):
        cells = [_says(found[way, *column]) for column in columns]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return lines


def _says(one: Mapping[str, Any]) -> str:
    return f"from {one['rate_mbit']:.3g} Mbit/s" if one["faster"] == "from" else str(one["faster"])
