"""Retries are few, jittered, and inside the deadline."""

import pytest

from edge_node.bounds import MAX_ATTEMPTS, Deadline, wait_s
from kvwire.errors import (
    AccessDenied,
    BadChecksum,
    Busy,
    Cancelled,
    DeadlineExceeded,
    Draining,
    InternalError,
    InvalidRequest,
    KvwireError,
    NotFound,
    Unreachable,
)


@pytest.mark.parametrize("error", [Unreachable(), Busy(0.0), Draining(0.0)])
def test_the_wait_is_uniform_below_a_bound_that_doubles(error: KvwireError) -> None:
    for attempt in range(1, MAX_ATTEMPTS):
        waits = [wait_s(error, attempt, 60.0) for _ in range(300)]
        known = [wait for wait in waits if wait is not None]
        bound = 0.1 * 2 ** (attempt - 1)
        assert len(known) == 300 and 0 <= min(known) < 0.1 * bound and 0.9 * bound < max(known) <= bound


def test_what_the_cloud_asks_for_comes_on_top() -> None:
    wait = wait_s(Busy(3.0), 1, 60.0)
    assert wait is not None and 3.0 <= wait <= 3.1


def test_there_is_no_wait_past_the_deadline_or_after_the_last_attempt() -> None:
    assert wait_s(Busy(3.0), 1, 2.9) is None
    assert wait_s(Unreachable(), MAX_ATTEMPTS, 60.0) is None


@pytest.mark.parametrize(
    "error",
    [
        NotFound(),
        AccessDenied(),
        InvalidRequest(),
        DeadlineExceeded(),
        Cancelled(),
        InternalError(),
        BadChecksum(),
    ],
)
def test_what_would_fail_again_is_not_tried_again(error: KvwireError) -> None:
    assert wait_s(error, 1, 60.0) is None


def test_a_deadline_that_passed_says_so() -> None:
    assert 0 < Deadline(5.0).check() <= 5.0
    with pytest.raises(DeadlineExceeded):
        Deadline(0.0).check()
