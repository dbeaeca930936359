"""Replicas of Ray Serve that sleep as long as a Sharer would read: how long questions wait, beside the model."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any, Final

from ops.bench.queues import waiting

_SERVICE_S: Final = 0.1
_LOAD: Final = 0.7
_ONGOING: Final = 8
"""Calls that a replica holds, as a cloud's `max_ongoing` by default; one is served at a time."""


def serve(replicas: Sequence[int], cv: float, questions: int) -> list[dict[str, Any]]:
    """Questions as a Poisson process at about 0.7 of what the replicas can serve; waits in mean service times.

    The model is of the load that there was. Ray's router takes the shorter of two replicas' queues.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray
    from ray import serve as ray_serve
    from ray.serve.schema import LoggingConfig

    quiet = LoggingConfig(enable_access_log=False, log_level="ERROR")
    ray.init(
        address="local",
        num_cpus=max(replicas),
        object_store_memory=80 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        ray_serve.start(proxy_location="Disabled", logging_config=quiet)
        rows = []
        for count in replicas:
            deployment = ray_serve.deployment(_Sleeper).options(
                num_replicas=count, max_ongoing_requests=_ONGOING, ray_actor_options={"num_cpus": 0.5}
            )
            name = f"scale{count}"
            handle = ray_serve.run(deployment.bind(), name=name, route_prefix=None, logging_config=quiet)
            waited, load = asyncio.run(_ask(handle, count, cv, questions))
            rate = load * count / _SERVICE_S
            rows.append(
                {"replicas": count, "questions": questions, "load": load, "wait_s": waited / _SERVICE_S}
                | {"shared_s": waiting(count, rate, _SERVICE_S, cv) / _SERVICE_S}
                | {"apart_s": waiting(1, rate / count, _SERVICE_S, cv) / _SERVICE_S}
            )
            ray_serve.delete(name)
        return rows
    finally:
        ray.shutdown()


class _Sleeper:
    """A replica that serves one question at a time."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def ask(self, seconds: float) -> None:
        """Take so long."""
        async with self._turn:
            await asyncio.sleep(seconds)


async def _ask(handle: Any, count: int, cv: float, questions: int) -> tuple[float, float]:
    """Mean seconds of waiting, without those of service; and the load."""
    rng = random.Random(count)
    await asyncio.gather(*(handle.ask.remote(0.0) for _ in range(8 * count)))  # every replica is known
    waits: list[float] = []

    async def one(seconds: float) -> None:
        began = time.monotonic()
        await handle.ask.remote(seconds)
        waits.append(time.monotonic() - began - seconds)

    asked: list[asyncio.Task[None]] = []
    spent, began = 0.0, time.monotonic()
    for _ in range(questions):
        seconds = rng.gammavariate(1 / (cv * cv), _SERVICE_S * cv * cv) if cv else _SERVICE_S
        spent += seconds
        asked.append(asyncio.create_task(one(seconds)))
        await asyncio.sleep(rng.expovariate(_LOAD * count / _SERVICE_S))
    span = time.monotonic() - began
    await asyncio.gather(*asked)
    return statistics.fmean(waits), spent / span / count
