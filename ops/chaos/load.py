"""Load: many callers of a cloud on Ray, of two tenants; and what one caller has while another tenant floods it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kvwire.errors import KvwireError
from ops.bench.cloud import percentiles
from ops.chaos.stage import Staged
from ops.chaos.trials import PROMPTS, TENANTS

if TYPE_CHECKING:
    from edge_node import AsyncClient
    from fuser.bundle.bundle import Bundle

_CALLERS: Final = (1, 2, 4, 8, 16, 32, 64)
_FLOODS: Final = (0, 16, 48)
_DEADLINE_S: Final = 5.0
_ONE_BY_ONE: Final = 40


@dataclass(slots=True)
class _Calls:
    """How calls ended: seconds of those that were answered, and how many were not."""

    answered: list[float] = field(default_factory=list)
    refused: int = 0


def measure(folder: Path, requests: int, advance: Callable[[], None]) -> dict[str, Any]:
    """`requests` slices for each number of callers, half of each tenant; then one caller of one beside the other's."""
    with Staged(folder) as stage:
        bundle = stage.truth.bundle
        return asyncio.run(_measured(stage, bundle, requests, advance))


async def _measured(
    stage: Staged, bundle: Bundle, requests: int, advance: Callable[[], None]
) -> dict[str, Any]:
    await _crowd(
        stage, bundle, 2, 20, lambda: None
    )  # connections and pages are there before anything is timed
    rows = []
    each = max(1, requests // len(_CALLERS))
    for callers in _CALLERS:
        began = time.monotonic()
        calls = await _crowd(stage, bundle, callers, max(each, 4 * callers), advance)
        rows.append(_row(calls, time.monotonic() - began) | {"callers": callers})
    fairness = [await _beside(stage, bundle, others) for others in _FLOODS]
    return {"callers": rows, "fairness": fairness, "deadline_s": _DEADLINE_S}


async def _crowd(
    stage: Staged, bundle: Bundle, callers: int, requests: int, advance: Callable[[], None]
) -> _Calls:
    calls, numbers = _Calls(), iter(range(requests))

    async def caller(tenant: str) -> None:
        async with _client(stage, tenant) as client:
            for number in numbers:
                await _call(client, bundle, number, calls)
                advance()

    await asyncio.gather(*(caller(TENANTS[at % 2]) for at in range(callers)))
    return calls


async def _beside(stage: Staged, bundle: Bundle, others: int) -> dict[str, Any]:
    """One tenant asks one by one while so many callers of the other ask all the time."""
    ended = asyncio.Event()

    async def flood() -> None:
        async with _client(stage, TENANTS[1]) as client:
            number = 0
            while not ended.is_set():
                await _call(client, bundle, number, _Calls())
                number += 1

    floods = [asyncio.create_task(flood()) for _ in range(others)]
    await asyncio.sleep(0.5 if others else 0.0)
    calls = _Calls()
    async with _client(stage, TENANTS[0]) as client:
        for number in range(_ONE_BY_ONE):
            await _call(client, bundle, number, calls)
    ended.set()
    await asyncio.gather(*floods)
    return {
        "others": others,
        "asked": _ONE_BY_ONE,
        "answered": len(calls.answered),
        "ms": percentiles(calls.answered or [_DEADLINE_S]),
    }


def _client(stage: Staged, tenant: str) -> AsyncClient:
    from edge_node import AsyncClient

    return AsyncClient(stage.edge(stage.address, _DEADLINE_S, tenant))


async def _call(client: AsyncClient, bundle: Bundle, number: int, calls: _Calls) -> None:
    prompt = PROMPTS[number % len(PROMPTS)]
    began = time.monotonic()
    try:
        async for _ in client.share(
            prompt.sections(), bundle, kind=prompt.kind, plan=prompt.plan, deadline_s=_DEADLINE_S
        ):
            pass
    except KvwireError:
        calls.refused += 1
    else:
        calls.answered.append(time.monotonic() - began)


def _row(calls: _Calls, seconds: float) -> dict[str, Any]:
    good: Sequence[float] = [took for took in calls.answered if took <= _DEADLINE_S]
    return {
        "answered": len(calls.answered),
        "refused": calls.refused,
        "seconds": seconds,
        "per_s": (len(calls.answered) + calls.refused) / seconds,
        "good_per_s": len(good) / seconds,
        "ms": percentiles(calls.answered or [_DEADLINE_S]),
    }
