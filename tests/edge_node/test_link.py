"""The estimate of the link: from real samples, robust to one that is off, forgotten when nothing confirms it."""

import pytest

from edge_node.link import Estimate, Link

TIMINGS = {"queue": 0.01, "prefill": 0.2, "encode": 0.05}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def came(link: Link, size: int, rate: float, rtt: float = 0.04, times: int = 1) -> None:
    """Slices over a link of this rate and round trip."""
    for _ in range(times):
        link.slice_came(size, rtt + TIMINGS["queue"], 0.25 + size / rate, 0.0, TIMINGS)


def test_nothing_is_known_at_first_and_no_time_is_told() -> None:
    link = Link()
    assert link.estimate == Estimate(None, None, None)
    assert link.estimate.seconds(1) is None
    link.round_trip(0.04)
    assert link.estimate.rtt_s == pytest.approx(0.04) and link.estimate.seconds(1) is None


def test_slices_of_a_steady_link_give_its_rate_and_round_trip_and_the_clouds_work() -> None:
    link = Link()
    came(link, 100_000, rate=1e6, times=4)
    estimate = link.estimate
    assert estimate.bandwidth_bytes_per_s == pytest.approx(1e6)
    assert estimate.rtt_s == pytest.approx(0.04) and estimate.cloud_s == pytest.approx(0.26)
    assert estimate.seconds(500_000) == pytest.approx(0.04 + 0.26 + 0.5)
    assert estimate.to_dict()["bandwidth_bytes_per_s"] == estimate.bandwidth_bytes_per_s


@pytest.mark.parametrize("factor", [0.001, 1000.0])
def test_one_outlier_moves_nothing_and_two_in_a_row_are_believed(factor: float) -> None:
    link = Link()
    came(link, 100_000, rate=1e6, times=4)
    came(link, 100_000, rate=1e6 * factor)
    assert link.estimate.bandwidth_bytes_per_s == pytest.approx(1e6)
    came(link, 100_000, rate=1e6, times=3)
    assert link.estimate.bandwidth_bytes_per_s == pytest.approx(1e6)
    slow = 0.25
    came(link, 100_000, rate=1e6 * slow, times=20)
    assert link.estimate.bandwidth_bytes_per_s == pytest.approx(1e6 * slow, rel=0.05)


def test_a_slow_first_call_is_forgotten_with_the_next_ones() -> None:
    link = Link()
    for seconds in (2.0, 0.04):  # the first one opened the connection
        link.round_trip(seconds)
    assert link.estimate.rtt_s == pytest.approx(0.04)
    link.round_trip(0.05)
    assert link.estimate.rtt_s == pytest.approx(0.05)


def test_a_slice_too_small_to_measure_says_what_the_link_has_at_least() -> None:
    link = Link()
    link.slice_came(600, 0.05, 0.25, 0.0, TIMINGS)
    floor = link.estimate.bandwidth_bytes_per_s
    assert floor == pytest.approx(600 / 0.006)
    link.slice_came(60, 0.05, 0.25, 0.0, TIMINGS)  # says less
    assert link.estimate.bandwidth_bytes_per_s == floor
    link.slice_came(6_000, 0.05, 0.25, 0.0, TIMINGS)
    link.slice_came(6_000, 0.05, 0.25, 0.0, TIMINGS)
    assert (link.estimate.bandwidth_bytes_per_s or 0) > 5 * (floor or 0)


def test_a_slice_that_streams_while_the_cloud_works_is_timed_by_its_flow() -> None:
    slow, fast = Link(), Link()
    for _ in range(3):
        slow.slice_came(1_000_000, 0.05, 1.05, 1.0, TIMINGS)  # the link took the second, and hid the work
        fast.slice_came(1_000_000, 0.05, 0.25, 0.2, TIMINGS)  # the work took the time
    assert slow.estimate.bandwidth_bytes_per_s == pytest.approx(1e6)
    assert fast.estimate.bandwidth_bytes_per_s == pytest.approx(5e6)
    slow.slice_came(1_000_000, 0.05, 2.25, 2.2, {"prefill": 2.2, "encode": 0.05})  # slow work says nothing
    assert slow.estimate.bandwidth_bytes_per_s == pytest.approx(1e6)


def test_late_slices_lower_the_estimate_and_never_raise_it() -> None:
    link = Link()
    link.slice_late(10**9, 1.0)
    assert link.estimate.bandwidth_bytes_per_s is None
    came(link, 100_000, rate=1e6, times=4)
    link.slice_late(10**9, 1.0)
    assert link.estimate.bandwidth_bytes_per_s == pytest.approx(1e6)
    for _ in range(6):
        link.slice_late(10_000, 1.0)
    assert (link.estimate.bandwidth_bytes_per_s or 0) < 3e5


def test_what_nothing_confirms_for_a_minute_is_forgotten() -> None:
    clock = Clock()
    link = Link(clock)
    came(link, 100_000, rate=1e6, times=4)
    for _ in range(4):
        clock.now += 50
        link.slice_came(600, 0.05, 0.25, 0.0, TIMINGS)  # too small to measure, and no contradiction
    assert link.estimate.bandwidth_bytes_per_s == pytest.approx(1e6)
    clock.now += 61
    assert link.estimate == Estimate()
    came(link, 100_000, rate=1e4)
    assert link.estimate.bandwidth_bytes_per_s == pytest.approx(1e4)


def test_impossible_samples_are_left_out() -> None:
    link = Link()
    for seconds in (0.0, -1.0, float("inf"), float("nan")):
        link.round_trip(seconds)
    assert link.estimate.rtt_s is None
    link.slice_came(0, 0.05, 0.25, 0.0, TIMINGS)  # an empty document
    assert link.estimate.bandwidth_bytes_per_s is None and link.estimate.cloud_s is not None
