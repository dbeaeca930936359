"""Time limit of an evaluation, which continues later where it stopped."""

from __future__ import annotations

import math
import time


class OutOfTime(Exception):
    """The time is up; what was done is kept."""


class Deadline:
    """So many minutes from now; infinitely many unless given."""

    def __init__(self, minutes: float = math.inf) -> None:
        self._end = time.monotonic() + 60 * minutes

    @property
    def minutes_left(self) -> float:
        """Minutes, at least 0."""
        return max(0.0, (self._end - time.monotonic()) / 60)

    def check(self) -> None:
        """Go on, or raise.

        Raises:
            OutOfTime: the time is up.
        """
        if time.monotonic() > self._end:
            raise OutOfTime
