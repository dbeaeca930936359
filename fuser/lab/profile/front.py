"""What nothing beats: points that no other is better than in every respect"""

from __future__ import annotations

from collections.abc import Sequence

Costs = tuple[float, ...]
"""Of one choice, all to be small; what should be large counts with its sign turned."""


def front(points: Sequence[Costs]) -> list[int]:
    """Indices of the points that no other one dominates (Pareto), in their order; of equal ones the first.

    A point dominates another that it is nowhere worse than, and somewhere better.
    """
    return [
        index
        for index, own in enumerate(points)
        if not any(_beats(other, own, at < index) for at, other in enumerate(points) if at != index)
    ]


def nearest_front(points: Sequence[tuple[float, float]], count: int) -> list[int]:
    """At most `count` indices of (cost, loss), those nearest to the front, in their order.

    How near is how much more a point loses than the best that costs no more. Of a front with more points than wanted
    every so many are taken, the ends always.
    """
    behind = [loss - min(other for cost, other in points if cost <= own) for own, loss in points]
    on = sorted((index for index, gap in enumerate(behind) if gap <= 0), key=points.__getitem__)
    if len(on) >= count:
        steps = max(1, count - 1)
        return sorted({on[round(step * (len(on) - 1) / steps)] for step in range(count)})
    rest = sorted((index for index, gap in enumerate(behind) if gap > 0), key=behind.__getitem__)
    return sorted(on + rest[: count - len(on)])


def _beats(other: Costs, own: Costs, earlier: bool) -> bool:
    return all(a <= b for a, b in zip(other, own, strict=True)) and (other != own or earlier)
