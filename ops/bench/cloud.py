"""`kvwire bench cloud`: calls through gateway, Ray and mutual TLS beside a bare batched prefill of the same tokens."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import Progress

from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind, SliceTrailer
from ops.bench.link import questions
from ops.demo.samples import DemoQuestion, DemoSample
from ops.demo.stage import CLOUD_START_S, Cast, DemoStage

if TYPE_CHECKING:
    from torch import Tensor

    from edge_node import AsyncClient
    from fuser.bundle.bundle import Bundle
    from fuser.sharer import Sharer

_DEADLINE_S = 120.0
_BARE_BATCHES = (1, 2, 4, 8)

Asked = tuple[DemoSample, DemoQuestion]


@dataclass(frozen=True, slots=True)
class CloudBench:
    """What to measure. streams: callers at a time, each with one call after the other. requests: calls for each."""

    cast: Cast
    streams: tuple[int, ...]
    requests: int
    kind: SliceKind


@dataclass(frozen=True, slots=True)
class Call:
    """One call as its caller saw it. own_s: what the replica says of it: queue, prefill, encode."""

    seconds: float
    own_s: float


def measure(
    bench: CloudBench, folder: Path, progress: Progress, check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """The bare prefill in this process; then the cloud as a process of its own, its callers in this one.

    No prefix is cached: every prompt is read whole on both sides. Both use as many threads.

    Raises:
        NodeFailed, KvwireError: the cloud did not start, or a call failed.
    """
    from edge_node import EdgeConfig

    asked = list(itertools.islice(itertools.cycle(questions(bench.requests)), bench.requests))
    sharer = _sharer(bench.cast)
    prompts = [_tokens(sharer, bench.kind, one) for one in asked]
    samples = list(dict.fromkeys(sample for sample, _ in asked))
    settings = {"prefix_cache_bytes": 0, "prefix_store": ""}
    bar = progress.add_task("bare prefill", total=len(_BARE_BATCHES) + len(bench.streams) + 1)
    bare = {}
    for size in _BARE_BATCHES:
        check()
        bare[size] = _bare(sharer, prompts, size)
        progress.advance(bar)
    progress.update(bar, description="starting the cloud node")
    with DemoStage(folder, bench.cast, samples, record=False, edge_runs=False, sharer=settings) as stage:
        stage.cloud.address(CLOUD_START_S, check)
        progress.advance(bar)
        config = EdgeConfig.load(folder / "edge" / "edge.toml")
        callers = Callers(config, sharer.bundle, bench.kind, bench.cast.codec, check)
        asyncio.run(
            callers.all(asked[:2], 1)
        )  # connections, kernels and pages are there before anything is timed
        rows = []
        for streams in bench.streams:
            progress.update(bar, description=f"{streams} streams")
            seconds, calls = asyncio.run(callers.all(asked, streams))
            rows.append(measured_row(streams, seconds, calls, prompts))
            progress.advance(bar)
    return summary(rows, bare, prompts)


def summary(
    rows: Sequence[Mapping[str, Any]], bare: Mapping[int, float], prompts: Sequence[Tensor]
) -> dict[str, Any]:
    """The result: every row beside the best bare prefill (seconds for all prompts, by batch size)."""
    tokens = sum(len(prompt) for prompt in prompts)
    best = min(bare, key=lambda size: bare[size])
    bare_rate = tokens / bare[best]
    told = [dict(row) | {"ratio": row["tokens_per_s"] / bare_rate} for row in rows]
    return {
        "prompts": len(prompts),
        "tokens": tokens,
        "longest": max(len(prompt) for prompt in prompts),
        "bare": {
            "batch": best,
            "tokens_per_s": bare_rate,
            "requests_per_s": len(prompts) / bare[best],
            "tokens_per_s_by_batch": {str(size): tokens / seconds for size, seconds in bare.items()},
        },
        "rows": told,
        "saturation": max(told, key=lambda row: float(row["ratio"])) if told else None,
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The table of a report."""
    results = report["results"]
    bare = results["bare"]
    lines = [
        f"{results['prompts']} prompts, {results['tokens']} tokens; bare prefill at its best batch of {bare['batch']}: "
        f"{bare['tokens_per_s']:.0f} tokens/s.",
        "",
        "| streams | requests/s | tokens/s | of bare prefill | request p50 | p99 | overhead p50 | p99 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        request, over = row["request_ms"], row["overhead_ms"]
        lines.append(
            f"| {row['streams']} | {row['requests_per_s']:.2f} | {row['tokens_per_s']:.0f} | {row['ratio']:.2f} | "
            f"{request['p50']:.0f} ms | {request['p99']:.0f} ms | {over['p50']:.1f} ms | {over['p99']:.1f} ms |"
        )
    lines += ["", "Overhead: a request's time less what its replica says of queue, prefill and encode."]
    return "\n".join(lines)


class Callers:
    """Callers of the cloud, each with a connection of its own."""

    def __init__(
        self, config: Any, bundle: Bundle, kind: SliceKind, codec: str, check: Callable[[], None]
    ) -> None:
        self._config, self._bundle, self._kind, self._check = config, bundle, kind, check
        self._plan = Plan(codec=codec)

    async def all(self, asked: Sequence[Asked], streams: int) -> tuple[float, list[Call]]:
        """Seconds until all were answered, and the calls; as many as `streams` at a time."""
        from edge_node import AsyncClient

        waiting = iter(asked)
        calls: list[Call] = []
        clients = [AsyncClient(self._config) for _ in range(min(streams, len(asked)))]

        async def stream(client: AsyncClient) -> None:
            for one in waiting:
                calls.append(await self._call(client, one))

        try:
            await asyncio.gather(*(client.describe(_DEADLINE_S) for client in clients))
            began = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for client in clients:
                    group.create_task(stream(client))
            return time.monotonic() - began, calls
        finally:
            for client in clients:
                await client.close()

    async def _call(self, client: AsyncClient, asked: Asked) -> Call:
        self._check()
        began, own_s = time.monotonic(), 0.0
        shared = client.share(
            _sections(self._kind, asked),
            self._bundle,
            kind=self._kind,
            plan=self._plan,
            deadline_s=_DEADLINE_S,
        )
        async for part in shared:
            if isinstance(part, SliceTrailer):
                own_s = sum(part.timings.values())
        return Call(time.monotonic() - began, own_s)


def _sections(kind: SliceKind, asked: Asked, resolved: bool = False) -> tuple[Section, ...]:
    """A document of the cloud and a question about it; or both shared, where nothing else would be cut."""
    sample, question = asked
    if kind is SliceKind.SHARED:
        return (Section(Role.QUESTION, Visibility.SHARED, text=f"{sample.text}\n{question.text}"),)
    text, name = (sample.text, None) if resolved else (None, sample.id)
    return (
        Section(Role.DOCUMENT, Visibility.CLOUD, text, name),
        Section(Role.QUESTION, Visibility.SHARED, text=question.text),
    )


def _sharer(cast: Cast) -> Sharer:
    """The Sharer as the cloud has it."""
    import os

    import torch

    from fuser import load_sharers

    torch.set_num_threads(min(os.cpu_count() or 1, 8))  # as `DemoStage` gives the cloud
    (sharer,) = load_sharers(cast.sharer, [cast.bundle], device=cast.device, dtype=cast.dtype)
    return sharer


def _tokens(sharer: Sharer, kind: SliceKind, asked: Asked) -> Tensor:
    return sharer.layout(_sections(kind, asked, resolved=True), kind, 32).prompt.tokens.ids


def _bare(sharer: Sharer, prompts: Sequence[Tensor], batch: int) -> float:
    """Seconds for all prompts in batches, longest first, padded on the right; no LM head."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    decoder = sharer.model.get_decoder()
    ordered = sorted(prompts, key=len, reverse=True)

    def run(some: Sequence[Tensor]) -> None:
        ids = pad_sequence(list(some), batch_first=True).to(sharer.model.device)
        mask = pad_sequence([torch.ones_like(prompt) for prompt in some], batch_first=True).to(ids.device)
        with torch.inference_mode():
            decoder(input_ids=ids, attention_mask=mask if batch > 1 else None, use_cache=True)

    run(ordered[-1:])
    began = time.monotonic()
    for start in range(0, len(ordered), batch):
        run(ordered[start : start + batch])
    return time.monotonic() - began


def measured_row(
    streams: int, seconds: float, calls: Sequence[Call], prompts: Sequence[Tensor]
) -> dict[str, Any]:
    """What one number of callers came to: all `prompts` answered in `seconds`."""
    return {
        "streams": streams,
        "requests": len(calls),
        "requests_per_s": len(calls) / seconds,
        "tokens_per_s": sum(len(prompt) for prompt in prompts) / seconds,
        "request_ms": percentiles([call.seconds for call in calls]),
        "overhead_ms": percentiles([call.seconds - call.own_s for call in calls]),
    }


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in ms; of fewer than a hundred the p99 is near the largest."""
    if len(seconds) < 2:
        return {"p50": seconds[0] * 1e3, "p99": seconds[0] * 1e3}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50": cuts[49] * 1e3, "p99": cuts[98] * 1e3}
