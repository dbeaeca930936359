"""Rows of a table of plans, as a profile would have measured them."""

from fuser.bundle.plans import Interval, PlanRow
from kvwire.plan import Plan
from kvwire.segment import SliceKind

NOUGHT = Interval(0.0, 0.0, 0.0)


def row(
    plan: Plan, size: int, transfer: float, low: float | None = None, kind: SliceKind = SliceKind.EXCERPT
) -> PlanRow:
    """A plan of `size` bytes on average, a tenth more at most, and a transfer 0.1 wide on both sides unless told."""
    low = transfer - 0.1 if low is None else low
    interval = Interval(transfer, low, transfer + 0.1)
    return PlanRow(
        plan, kind, float(size), size + size // 10, 2 * size, interval, interval, NOUGHT, None, NOUGHT, 200
    )
