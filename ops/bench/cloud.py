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
from ops.bench.ratio import ratio_of, told
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
    """What to measure. streams: callers at a time, each with one call after the other. requests: calls for each, in
    each of the rounds."""

    cast: Cast
    streams: tuple[int, ...]
    requests: int
    kind: SliceKind
    rounds: int


@dataclass(frozen=True, slots=True)
class Call:
    """One call as its caller saw it. waited_s, worked_s: in the cloud's queues; prefill and encoding, as it says."""

    seconds: float
    waited_s: float
    worked_s: float


@dataclass(frozen=True, slots=True)
class Round:
    """All prompts once through the service, and bare right before or after. streams: callers. seconds: until all were
    answered. bare_s: of the bare prefill."""

    streams: int
    seconds: float
    bare_s: float
    calls: Sequence[Call]


def measure(
    bench: CloudBench, folder: Path, progress: Progress, check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """The cloud as a process of its own with its callers in this one, and the bare prefill in this one, in turns.

    No prefix is cached: every prompt is read whole on both sides. Both use as many threads, and both have run once
    before anything is timed.

    Raises:
        NodeFailed, KvwireError: the cloud did not start, or a call failed.
    """
    from edge_node import EdgeConfig

    asked = list(itertools.islice(itertools.cycle(questions(bench.requests)), bench.requests))
    sharer = _sharer(bench.cast)
    prompts = [_tokens(sharer, bench.kind, one) for one in asked]
    samples = list(dict.fromkeys(sample for sample, _ in asked))
    settings = {"prefix_cache_bytes": 0, "prefix_store": ""}
    steps = len(_BARE_BATCHES) + 2 + bench.rounds * len(bench.streams)
    bar = progress.add_task("starting the cloud node", total=steps)
    with DemoStage(folder, bench.cast, samples, record=False, edge_runs=False, sharer=settings) as stage:
        stage.cloud.address(CLOUD_START_S, check)
        progress.update(bar, advance=1, description="bare prefill")
        config = EdgeConfig.load(folder / "edge" / "edge.toml")
        callers = Callers(config, sharer.bundle, bench.kind, bench.cast.codec, check)
        bare = {}
        for size in _BARE_BATCHES:
            check()
            bare[size] = _bare(sharer, prompts, size)
            progress.advance(bar)
        best = min(bare, key=lambda size: bare[size])
        asyncio.run(callers.all(asked, max(bench.streams)))
        progress.advance(bar)
        found = []
        for number in range(bench.rounds):
            for streams in bench.streams:
                check()
                progress.update(bar, description=f"{streams} streams")
                before_s = None if number % 2 else _bare(sharer, prompts, best)
                seconds, calls = asyncio.run(callers.all(asked, streams))
                bare_s = _bare(sharer, prompts, best) if before_s is None else before_s
                found.append(Round(streams, seconds, bare_s, calls))
                progress.advance(bar)
    return summary(found, bare, [len(prompt) for prompt in prompts])


def summary(found: Sequence[Round], bare: Mapping[int, float], lengths: Sequence[int]) -> dict[str, Any]:
    """The result: by number of callers, every round beside its bare prefill.

    Args:
        bare: seconds for all prompts, by batch size; the best one is that of the rounds.
        lengths: tokens of each prompt.
    """
    tokens, best = sum(lengths), min(bare, key=lambda size: bare[size])
    rows = []
    for streams in dict.fromkeys(one.streams for one in found):
        own = [one for one in found if one.streams == streams]
        calls = [call for one in own for call in one.calls]
        shares = ratio_of([(one.bare_s, one.seconds) for one in own])
        rows.append(
            {
                "streams": streams,
                "requests": len(calls),
                "requests_per_s": len(lengths) / shares["theirs_s"],
                "tokens_per_s": tokens / shares["theirs_s"],
                **{name: shares[name] for name in ("ratio", "low", "high")},
                "rounds": [{"bare_s": one.bare_s, "service_s": one.seconds} for one in own],
                "request_ms": percentiles([call.seconds for call in calls]),
                "waited_ms": percentiles([call.waited_s for call in calls]),
                "overhead_ms": percentiles([call.seconds - call.waited_s - call.worked_s for call in calls]),
            }
        )
    bare_s = statistics.fmean(one.bare_s for one in found)
    return {
        "prompts": len(lengths),
        "tokens": tokens,
        "longest": max(lengths),
        "bare": {
            "batch": best,
            "tokens_per_s": tokens / bare_s,
            "requests_per_s": len(lengths) / bare_s,
            "tokens_per_s_by_batch": {str(size): tokens / seconds for size, seconds in bare.items()},
        },
        "rows": rows,
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The table of a report."""
    results = report["results"]
    bare = results["bare"]
    lines = [
        f"{results['prompts']} prompts, {results['tokens']} tokens; bare prefill in batches of {bare['batch']}, its "
        f"best: {bare['tokens_per_s']:.0f} tokens/s.",
        "",
        "| streams | requests/s | tokens/s | of bare prefill (95 %) | request p50 | p99 | waited p50 | overhead p50 "
        "| p99 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        request, over = row["request_ms"], row["overhead_ms"]
        lines.append(
            f"| {row['streams']} | {row['requests_per_s']:.2f} | {row['tokens_per_s']:.0f} | {told(row)} | "
            f"{request['p50']:.0f} ms | {request['p99']:.0f} ms | {row['waited_ms']['p50']:.0f} ms | "
            f"{over['p50']:.1f} ms | {over['p99']:.1f} ms |"
        )
    lines += [
        "",
        "Waited: for a turn at the replica, and there for the model. Overhead: a request's time less that, prefill and "
        "encoding.",
    ]
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
        began, timings = time.monotonic(), {"queue": 0.0}
        shared = client.share(
            _sections(self._kind, asked),
            self._bundle,
            kind=self._kind,
            plan=self._plan,
            deadline_s=_DEADLINE_S,
        )
        async for part in shared:
            if isinstance(part, SliceTrailer):
                timings = part.timings
        seconds, waited_s = time.monotonic() - began, timings["queue"]
        return Call(seconds, waited_s, sum(timings.values()) - waited_s)


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


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in ms; of fewer than a hundred the p99 is near the largest."""
    if len(seconds) < 2:
        return {"p50": seconds[0] * 1e3, "p99": seconds[0] * 1e3}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50": cuts[49] * 1e3, "p99": cuts[98] * 1e3}
