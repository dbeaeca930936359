"""Questions that wait for replicas: M/G/c as a formula, and one after the other in a simulation."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np

ANY: Final = "any replica"
OWN: Final = "the document's replica"
SPILL: Final = "the document's replica, unless it is busy"


@dataclass(frozen=True, slots=True)
class Scale:
    """What is asked for. tokens: of a document. zipf: exponent of its popularity. memory_bytes: of a replica's cache.

    relay: seconds of a text relay in those of a next question's slice. slice_bytes, text_bytes: what one question
    brings down the wire. events: questions that are simulated.
    """

    questions_s: float = 10_000.0
    documents: int = 1_000_000
    zipf: float = 0.9
    tokens: int = 500
    memory_bytes: int = 256 << 20
    loads: tuple[float, ...] = (0.5, 0.7, 0.85)
    relay: float = 4.6
    slice_bytes: int = 1_005
    text_bytes: int = 400
    events: int = 300_000


def waiting(servers: int, questions_s: float, mean_s: float, cv: float) -> float:
    """Mean seconds in the queue of M/G/c: Erlang's C times (1 + cv^2) / 2 (Allen and Cunneen 1978); inf when full."""
    offered = questions_s * mean_s
    if offered >= servers:
        return math.inf
    blocked = 1.0  # Erlang's B, server by server
    for count in range(1, servers + 1):
        blocked = offered * blocked / (count + offered * blocked)
    waits = blocked / (1 - offered / servers * (1 - blocked))
    return waits * mean_s / (servers - offered) * (1 + cv * cv) / 2


def simulate(
    scale: Scale, servers: int, way: str, seconds: tuple[float, float], cv: float, room: int
) -> dict[str, float]:
    """Questions one after the other, each at the replica that the way names, which serves in the order of arrival.

    Args:
        seconds: of a question whose document is in the replica's memory, and is not. room: documents in a memory.

    Returns:
        "wait_s" mean and "p99_s", "load", and "memory", the share of questions that found their document there; of the
        second half.
    """
    rng = np.random.default_rng(1)
    came = rng.exponential(1 / scale.questions_s, scale.events).cumsum()
    shares = np.arange(1, scale.documents + 1) ** -scale.zipf
    asked = np.searchsorted(shares.cumsum() / shares.sum(), rng.random(scale.events))
    sigma = math.sqrt(math.log1p(cv * cv))
    noise = rng.lognormal(-sigma * sigma / 2, sigma, scale.events)
    home = np.random.default_rng(2).integers(0, servers, scale.documents)
    drawn = rng.integers(0, servers, (scale.events, 2))
    free = np.zeros(servers)
    kept: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(servers)]
    waits, busy, found = np.zeros(scale.events), 0.0, 0
    half = scale.events // 2
    for number, (now, document, two) in enumerate(zip(came, asked, drawn, strict=True)):
        at = int(home[document])
        if way == ANY:
            at = int(free.argmin())
        elif way == SPILL and free[at] - now > seconds[0]:
            at = int(two[free[two].argmin()])
        memory = kept[at]
        known = document in memory
        memory[document] = None
        memory.move_to_end(document)
        if len(memory) > room:
            memory.popitem(last=False)
        took = seconds[0 if known else 1] * noise[number]
        waits[number] = max(0.0, free[at] - now)
        free[at] = max(free[at], now) + took
        if number >= half:
            busy, found = busy + took, found + known
    late, span = waits[half:], float(came[-1] - came[half])
    return {
        "wait_s": float(late.mean()),
        "p99_s": float(np.quantile(late, 0.99)),
        "load": busy / span / servers,
        "memory": found / (scale.events - half),
    }
