"""A bounded queue for the one Receiver: a few requests are answered, a few wait, the rest come again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from kvwire.errors import Busy


class RequestQueue:
    """Gives out turns in the order they were asked for. Used within one event loop."""

    def __init__(self, max_waiting: int, at_once: int, retry_after_s: float = 1.0) -> None:
        self._room = at_once + max_waiting
        self._retry_after_s = retry_after_s
        self._here = 0
        self._turns = asyncio.Semaphore(at_once)

    @property
    def length(self) -> int:
        """How many are here: those whose turn it is, and those that wait."""
        return self._here

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Wait for a turn and hold it. Whoever is cancelled meanwhile leaves the queue.

        Raises:
            Busy: too many wait already.
        """
        if self._here >= self._room:
            raise Busy(self._retry_after_s)
        self._here += 1
        try:
            async with self._turns:
                yield
        finally:
            self._here -= 1
