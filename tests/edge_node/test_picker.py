"""The picker: nearly the most transfer that bytes and time allow, in few bytes; no slice where none is worth it."""

import itertools

import pytest

from edge_node.link import Estimate
from edge_node.picker import BEST, BYTE_BUDGET, DEADLINE, NOT_USEFUL, Pick, pick
from kvwire.plan import Plan
from tests.fuser.lab.profile.rows import row

SMALL, MIDDLE, LARGE, NOISE = (Plan(codec=name) for name in ("small", "middle", "large", "noise"))
ROWS = (
    row(LARGE, 20_000, 0.5),
    row(SMALL, 300, 0.2),
    row(MIDDLE, 2_000, 0.4),
    row(NOISE, 100, 0.1, low=-0.01),
)
MOST = {LARGE: 30_000, MIDDLE: 3_000, SMALL: 350, NOISE: 100}
FAST = Estimate(1e6, 0.05, 0.5)


def chosen(max_bytes: int = 0, deadline_s: float = 20.0, estimate: Estimate = FAST) -> Pick:
    return pick(ROWS, MOST.__getitem__, max_bytes, deadline_s, estimate)


@pytest.mark.parametrize(
    ("max_bytes", "plan", "reason"),
    [
        (0, LARGE, BEST),
        (30_000, LARGE, BEST),
        (29_999, MIDDLE, BYTE_BUDGET),  # its slices have 20,000 bytes on average, and may have 30,000
        (2_999, SMALL, BYTE_BUDGET),
        (349, None, BYTE_BUDGET),
        (1, None, BYTE_BUDGET),
    ],
)
def test_a_byte_budget_counts_what_a_plan_may_come_to(max_bytes: int, plan: Plan | None, reason: str) -> None:
    assert chosen(max_bytes) == Pick(plan, reason)


@pytest.mark.parametrize(
    ("rate", "deadline_s", "plan", "reason"),
    [
        (1e6, 1.0, LARGE, BEST),
        (1e4, 1.0, MIDDLE, DEADLINE),
        (1e4, 0.6, SMALL, DEADLINE),
        (1e4, 0.5, None, DEADLINE),  # round trip and work alone take longer
        (1e2, 1.0, None, DEADLINE),
        (1e2, 10.0, SMALL, DEADLINE),
    ],
)
def test_a_deadline_counts_round_trip_work_and_bytes(
    rate: float, deadline_s: float, plan: Plan | None, reason: str
) -> None:
    assert chosen(deadline_s=deadline_s, estimate=Estimate(rate, 0.05, 0.5)) == Pick(plan, reason)


def test_of_both_bounds_the_one_that_decided_is_named() -> None:
    assert chosen(3_000, 1.0, Estimate(1e4, 0.05, 0.5)) == Pick(MIDDLE, BYTE_BUDGET)
    assert chosen(3_000, 0.6, Estimate(1e4, 0.05, 0.5)) == Pick(SMALL, DEADLINE)


@pytest.mark.parametrize("known", list(itertools.product((None, 1.0), repeat=3))[:-1])
def test_a_link_that_is_not_known_yet_counts_as_one_of_a_megabit_a_second(
    known: tuple[float | None, ...],
) -> None:
    assert chosen(estimate=Estimate(*known)) == Pick(LARGE, BEST)
    assert chosen(deadline_s=0.1, estimate=Estimate(*known)) == Pick(MIDDLE, DEADLINE)
    assert chosen(3_000, estimate=Estimate(*known)) == Pick(MIDDLE, BYTE_BUDGET)
    assert chosen(30_000, estimate=Estimate(*known)) == Pick(LARGE, BEST)
    assert chosen(349, estimate=Estimate(*known)) == Pick(None, BYTE_BUDGET)


def test_a_plan_whose_interval_holds_nought_is_never_picked() -> None:
    assert pick(ROWS[3:], MOST.__getitem__, 0, 20.0, FAST) == Pick(None, NOT_USEFUL)
    assert pick((), MOST.__getitem__, 0, 20.0, FAST) == Pick(None, NOT_USEFUL)


def test_of_equal_transfer_the_fewer_bytes() -> None:
    rows = [row(LARGE, 900, 0.3), row(SMALL, 300, 0.3), row(MIDDLE, 600, 0.3)]
    assert pick(rows, lambda plan: 1, 0, 20.0, FAST) == Pick(SMALL, BEST)


def test_a_plan_that_keeps_nearly_all_of_the_transfer_is_picked_for_its_bytes() -> None:
    rows = (row(LARGE, 20_000, 0.50), row(MIDDLE, 2_000, 0.48), row(SMALL, 300, 0.47))
    assert pick(rows, lambda plan: 1, 0, 20.0, FAST) == Pick(MIDDLE, BEST)
    assert pick(rows[1:], lambda plan: 1, 0, 20.0, FAST) == Pick(SMALL, BEST)
