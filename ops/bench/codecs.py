"""Every rung of the ladder on real segments: bytes, error and speed, beside zstd alone and a copy of the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import zstandard
from torch import Tensor

from kvwire.codec import Codec, CodecRegistry, Int8, Raw
from kvwire.errors import Unsupported
from kvwire.segment import SegmentSpec, SliceKind
from ops.bench.real_segments import CODES, SOURCE_HALVES, Sample

if TYPE_CHECKING:
    from rich.progress import Progress

    from fuser.bundle.plans import PlanTable


class WithZstd:
    """A codec's bytes in one zstd frame of level 1: what a rung with bits of its own is measured against."""

    def __init__(self, inner: Codec) -> None:
        self._inner = inner
        self.name = f"{inner.name} + zstd-1"

    def encode(self, tensor: Tensor, spec: SegmentSpec) -> bytes:
        """As a codec's, but no product sends it."""
        return bytes(zstandard.ZstdCompressor(level=1).compress(self._inner.encode(tensor, spec)))

    def decode(self, payload: bytes, spec: SegmentSpec) -> Tensor:
        """The inverse, of bytes that `encode` made."""
        return self._inner.decode(zstandard.ZstdDecompressor().decompress(payload), spec)


Rung = Codec | WithZstd
_BITS = (0.25, 0.5, 1, 2, 4, 8, 16)
_PERCENTS = (0.1, 0.3, 1, 3, 10, 30, 100)
_T = TypeVar("_T")


def measure(
    samples: Sequence[Sample],
    registry: CodecRegistry,
    progress: Progress,
    rounds: int = 3,
    table: PlanTable | None = None,
) -> dict[str, Any]:
    """Every rung on every group of segments. Rungs take turns; of several rounds each one's fastest counts.

    Args:
        table: of the bundle's plans, where it has been profiled.

    Returns:
        "groups": by name, "segments", "numbers", and "copy_mb_s", the speed at which they are copied in memory as
        bfloat16. "rows": one for each rung and each group that it has bases for: "bytes", "bits" a number, "ratio" to
        bfloat16, "error" (root mean square, as a part of the spread around each number's mean), "encode_mb_s" and
        "decode_mb_s" of bfloat16, the same as parts of a copy's speed, and "transfer_loss" with its interval, if known.
    """
    rungs: list[Rung] = []
    for name in registry.names():
        rungs.append(registry.get(name))
        if isinstance(rungs[-1], (Raw, Int8)):
            rungs.append(WithZstd(rungs[-1]))
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.spec.elements:
            groups.setdefault(sample.group, []).append(sample)
    losses = {} if table is None else _losses(table)
    told: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for name, group in groups.items():
        numbers = sum(sample.spec.elements for sample in group)
        copy, timed = _timed([rung for rung in rungs if _knows(rung, group)], group, rounds, progress)
        told[name] = {
            "segments": len(group),
            "numbers": numbers,
            "copy_mb_s": round(2e-6 * numbers / copy, 1),
        }
        for rung, (encode, decode, size, error) in timed.items():
            row = {"rung": rung, "group": name, "bytes": size, "bits": round(8 * size / numbers, 3)}
            row |= {"ratio": round(2 * numbers / size, 2), "error": round(error, 5)}
            for what, seconds in (("encode", encode), ("decode", decode)):
                row[f"{what}_mb_s"] = round(2e-6 * numbers / seconds, 1)
                row[f"{what}_of_copy"] = round(copy / seconds, 4)
            rows.append(row | {"transfer_loss": losses.get((name, rung))})
    return {"groups": told, "rows": rows}


def _knows(rung: Rung, group: Sequence[Sample]) -> bool:
    if isinstance(rung, WithZstd):
        return True
    try:
        return all(rung.max_bytes(sample.spec) for sample in group)
    except Unsupported:
        return False


def _timed(
    rungs: Sequence[Rung], group: Sequence[Sample], rounds: int, progress: Progress
) -> tuple[float, dict[str, tuple[float, float, int, float]]]:
    """Seconds of a copy; and by rung seconds to encode and to decode the group, bytes, and error."""
    halves = [sample.tensor.bfloat16() for sample in group]
    copies: list[float] = []
    spent: dict[str, list[tuple[float, float]]] = {rung.name: [] for rung in rungs}
    found: dict[str, tuple[int, float]] = {}
    for _ in progress.track(range(rounds), description=f"codecs on {group[0].group}"):
        copies.append(_seconds(lambda: [half.clone() for half in halves])[0])
        for rung in rungs:
            encoding, payloads = _seconds(_encoded, rung, group)
            decoding, decoded = _seconds(_decoded, rung, group, payloads)
            spent[rung.name].append((encoding, decoding))
            found[rung.name] = sum(map(len, payloads)), _error(group, decoded)
    best = {name: [min(times) for times in zip(*rows, strict=True)] for name, rows in spent.items()}
    return min(copies), {name: (encode, decode, *found[name]) for name, (encode, decode) in best.items()}


def _error(group: Sequence[Sample], decoded: Sequence[Tensor]) -> float:
    """Root mean square error, as a part of the spread around the mean of each number of each kind and layer."""
    places: dict[tuple[Any, ...], list[tuple[Tensor, Tensor]]] = {}
    for sample, tensor in zip(group, decoded, strict=True):
        place = sample.spec.kind, sample.spec.layer, sample.spec.shape[-1]
        places.setdefault(place, []).append((sample.judge(sample.tensor), sample.judge(tensor)))
    wrong = spread = 0.0
    for pairs in places.values():
        truth, found = (torch.cat(parts).double() for parts in zip(*pairs, strict=True))
        wrong += float((found - truth).square().sum())
        spread += float((truth - truth.mean(0)).square().sum())
    return float((wrong / spread) ** 0.5) if spread else 0.0


def _encoded(rung: Rung, group: Sequence[Sample]) -> list[bytes]:
    return [rung.encode(sample.tensor, sample.spec) for sample in group]


def _decoded(rung: Rung, group: Sequence[Sample], payloads: Sequence[bytes]) -> list[Tensor]:
    return [rung.decode(payload, sample.spec) for payload, sample in zip(payloads, group, strict=True)]


def _seconds(work: Callable[..., list[_T]], *given: Any) -> tuple[float, list[_T]]:
    began = time.perf_counter()
    done = work(*given)
    return time.perf_counter() - began, done


def _losses(table: PlanTable) -> dict[tuple[str, str], dict[str, float]]:
    """Transfer that a rung loses against raw, by group and rung: of its profiled plan that sends most."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in sorted(table.rows, key=lambda row: row.mean_bytes):
        shared = (SOURCE_HALVES,) if row.plan.bottleneck else ("K", "V")
        lost = {"point": -row.against_raw.point, "low": -row.against_raw.high, "high": -row.against_raw.low}
        for group in shared if row.kind is SliceKind.SHARED else (CODES,):
            found[group, row.plan.codec] = lost
    return found


def markdown(report: Mapping[str, Any]) -> str:
    """A table for each group of segments."""
    results = report["results"]
    lines: list[str] = []
    for name, group in results["groups"].items():
        lines += [
            f"**{name}**: {group['segments']} segments of {group['numbers']:,} numbers together; "
            f"a copy in memory runs at {group['copy_mb_s']:,.0f} MB/s",
            "",
            "| rung | bits a number | of bf16 | error | encode MB/s | decode MB/s | of a copy | transfer lost |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in (row for row in results["rows"] if row["group"] == name):
            loss = row["transfer_loss"]
            lost = (
                ""
                if loss is None
                else "{point:.1f} [{low:.1f}, {high:.1f}]".format(
                    **{key: 100 * value for key, value in loss.items()}
                )
            )
            lines.append(
                f"| {row['rung']} | {row['bits']:.2f} | {row['ratio']:.1f}x | {100 * row['error']:.2f} % "
                f"| {row['encode_mb_s']:,.0f} | {row['decode_mb_s']:,.0f} "
                f"| {row['encode_of_copy']:.3f}, {row['decode_of_copy']:.3f} | {lost} |"
            )
        lines.append("")
    return "\n".join(lines).rstrip()


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Error against bits a number, a panel for each group of segments."""
    from matplotlib.figure import Figure

    results = report["results"]
    groups = list(results["groups"])
    figure = Figure(figsize=(4.5 * len(groups), 4.5), layout="constrained")
    for panel, name in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        rows = [row for row in results["rows"] if row["group"] == name and row["error"] > 0]
        families: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            family = row["rung"] if "+" in row["rung"] else row["rung"].partition("-")[0]
            families.setdefault(family, []).append(row)
        for family, members in families.items():
            points = sorted((row["bits"], 100 * row["error"]) for row in members)
            panel.plot(*zip(*points, strict=True), marker="o", label=family)
        panel.set(xscale="log", yscale="log", title=name, xlabel="bits a number")
        for axis, ticks in ((panel.xaxis, _BITS), (panel.yaxis, _PERCENTS)):
            axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_ticks([], minor=True)
        panel.set_xlim(0.2, 20)
        panel.set_ylabel("error, % of the spread")
        panel.grid(alpha=0.3)
        panel.legend()
    figure.savefig(path, dpi=150)
