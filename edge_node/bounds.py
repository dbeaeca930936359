"""What bounds a call: a deadline, attempts, and the process that it may be made in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncGenerator, Callable
from typing import Final, TypeVar

from kvwire.errors import Busy, DeadlineExceeded, Draining, KvwireError

T = TypeVar("T")
MAX_ATTEMPTS: Final = 4
_FIRST_S: Final = 0.1
_MOST_S: Final = 2.0


class Deadline:
    """A moment in the future, in seconds from now; `least_s` seconds are needed to begin anything."""

    def __init__(self, after_s: float, least_s: float = 0.0) -> None:
        self._end = time.monotonic() + after_s
        self._least_s = least_s

    @property
    def left_s(self) -> float:
        """Seconds until then; never negative."""
        return max(0.0, self._end - time.monotonic())

    def check(self) -> float:
        """Seconds until then.

        Raises:
            DeadlineExceeded: it is over, or too near to begin anything.
        """
        if (left := self.left_s) <= self._least_s:
            raise DeadlineExceeded(f"{left:.3f} s to the deadline at the edge")
        return left


async def retried(once: Callable[[], AsyncGenerator[T, None]], deadline: Deadline) -> AsyncGenerator[T, None]:
    """What one attempt gives. Until it has given something, one that failed may be followed by another.

    Raises:
        DeadlineExceeded: there is no time for an attempt. KvwireError: as the last attempt.
    """
    attempt = 0
    while True:
        attempt += 1
        begun = False
        deadline.check()
        try:
            async with contextlib.aclosing(once()) as parts:
                async for part in parts:
                    begun = True
                    yield part
            return
        except KvwireError as error:
            wait = None if begun else wait_s(error, attempt, deadline.left_s)
            if wait is None:
                raise
        await asyncio.sleep(wait)


def wait_s(error: KvwireError, attempt: int, left_s: float) -> float | None:
    """Seconds to wait before the next attempt; None where there should be none.

    Full jitter (uniform from 0 to a bound that doubles), on top of what the cloud asked for.

    Args:
        error: why the last attempt failed.
        attempt: how many there were, from 1.
        left_s: seconds until the deadline.
    """
    if not error.retryable or attempt >= MAX_ATTEMPTS:
        return None
    asked_s = error.retry_after_s if isinstance(error, Busy | Draining) else 0.0
    wait = asked_s + random.uniform(0.0, min(_MOST_S, _FIRST_S * 2 ** (attempt - 1)))
    return wait if wait < left_s else None


class Home:
    """This process. `what` was made here, for the message."""

    def __init__(self, what: str) -> None:
        self._what, self._pid = what, os.getpid()

    @property
    def here(self) -> bool:
        """Whether this is still the process, not a child forked from it."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Nothing where this is still the process.

        Raises:
            RuntimeError: this is a child forked from it.
        """
        if not self.here:
            raise RuntimeError(
                f"{self._what} was made before this process was forked: make one in each process"
            )
