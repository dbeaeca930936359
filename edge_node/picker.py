"""Which plan to ask for: of those measured to be of use, the one of most transfer that bytes and time allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge_node.link import Estimate
from kvwire.plan import Plan

if TYPE_CHECKING:
    from fuser.profile.table import PlanRow

CONFIGURED: Final = "CONFIGURED"
"""The configuration names the plan, or no table of this bundle says better."""
BEST: Final = "BEST"
"""Bytes and time allow the plan of most transfer."""
BYTE_BUDGET: Final = "BYTE_BUDGET"
"""A better plan may need more bytes than allowed."""
DEADLINE: Final = "DEADLINE"
"""A better plan would come too late over the link as it is estimated."""
NO_ESTIMATE: Final = "NO_ESTIMATE"
"""Nothing is known of the link yet: the smallest plan of use, which is the first thing to measure it by."""
NOT_USEFUL: Final = "NOT_USEFUL"
"""No plan of the table has a transfer whose interval is clear of 0."""


@dataclass(frozen=True, slots=True)
class Pick:
    """What to ask for; None where no slice is worth it. reason: one of this module's."""

    plan: Plan | None
    reason: str


def pick(
    rows: Sequence[PlanRow],
    most: Callable[[Plan], int],
    max_bytes: int,
    deadline_s: float,
    estimate: Estimate,
) -> Pick:
    """Choose among the rows of one kind of slice; of equal transfer the fewest bytes.

    Args:
        most: the payload bytes that a plan may come to for this prompt. The cloud refuses what may be over the cap, so
            it counts, not what slices had on average.
        max_bytes: cap on the payload; 0 is none.
        deadline_s: seconds from the request to the end of the slice.
    """
    useful = sorted(
        (row for row in rows if row.useful), key=lambda row: (-row.transfer.point, row.mean_bytes)
    )
    if not useful:
        return Pick(None, NOT_USEFUL)
    small = [row for row in useful if not max_bytes or most(row.plan) <= max_bytes]
    if not small:
        return Pick(None, BYTE_BUDGET)
    if estimate.seconds(0) is None:
        return Pick(min(small, key=lambda row: row.mean_bytes).plan, NO_ESTIMATE)

    def timely(row: PlanRow) -> bool:
        seconds = estimate.seconds(row.max_bytes)
        return seconds is not None and seconds <= deadline_s

    fits = [row for row in small if timely(row)]
    if not fits:
        return Pick(None, DEADLINE)
    if fits[0] is useful[0]:
        return Pick(fits[0].plan, BEST)
    return Pick(fits[0].plan, DEADLINE if fits[0] is not small[0] else BYTE_BUDGET)
