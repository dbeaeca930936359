"""What happens at which step: the task, the learning rate, the random seed.

Everything is a function of the step alone, so a run that was stopped goes on exactly as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_FLOOR = 0.05  # of the learning rate, at the end


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose step it is: the task's name, and the number of the step among the task's own."""

    task: str
    own: int


def turns(tasks: Sequence[str], mix: Mapping[str, float], steps: int) -> list[Turn]:
    """The task of every step: at each the one that is furthest behind its share.

    Args:
        tasks: names of the tasks that have examples.
        mix: share of each by name, in any unit; empty means equal shares.

    Raises:
        ValueError: a share for a task that is not there, a task without a share, or a share that is not positive.
    """
    if mix and set(mix) != set(tasks):
        raise ValueError(f"[mix] names {', '.join(sorted(mix))}; the tasks are {', '.join(sorted(tasks))}")
    if any(not share > 0 for share in mix.values()):
        raise ValueError("[mix]: every share must be above 0; leave a task's sources out to leave it out")
    shares = {name: mix.get(name, 1.0) for name in tasks}
    total = sum(shares.values())
    done = dict.fromkeys(tasks, 0)
    order: list[Turn] = []
    for step in range(1, steps + 1):
        name = max(tasks, key=lambda task: shares[task] / total * step - done[task])
        order.append(Turn(name, done[name]))
        done[name] += 1
    return order


def learning_rate_factor(step: int, warmup: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < warmup:
        return (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * share))


def seed_of(seed: int, step: int, rank: int = 0) -> int:
    """The random seed of one worker's step: different for every (seed, step, rank) of a run."""
    return (seed * 1_000_003 + step) * 4096 + rank
