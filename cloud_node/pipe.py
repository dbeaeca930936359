"""A bounded way out of a worker thread into an event loop, with a flag the other way: stop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from kvwire.errors import Cancelled, DeadlineExceeded

T = TypeVar("T")


class CancelToken:
    """Says whether work should go on: until it is set, or its time is over. May be asked from any thread."""

    def __init__(self, timeout_s: float) -> None:
        self._end = time.monotonic() + timeout_s
        self._event = threading.Event()

    def set(self) -> None:
        """The caller went away."""
        self._event.set()

    def __call__(self) -> bool:
        return self._event.is_set() or time.monotonic() >= self._end

    def check(self) -> None:
        """Raise Cancelled or DeadlineExceeded when work should stop."""
        if self._event.is_set():
            raise Cancelled("the caller went away")
        if time.monotonic() >= self._end:
            raise DeadlineExceeded("the deadline passed in the replica")


class Pipe(Generic[T]):
    """One thread puts, one coroutine reads. Made inside the reader's event loop.

    `put` waits while `capacity` items lie unread, and gives up as soon as `stop` says so.
    """

    def __init__(self, capacity: int, stop: CancelToken) -> None:
        self._capacity = capacity
        self._stop = stop
        self._items: deque[T] = deque()
        self._closed = False
        self._room = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    def put(self, item: T) -> None:
        """Hand over an item, from the worker thread.

        Raises:
            Cancelled: the reader went away. DeadlineExceeded: the time is over.
        """
        with self._room:
            while len(self._items) >= self._capacity:
                self._stop.check()
                self._room.wait(0.05)
            self._stop.check()
            self._items.append(item)
            first = len(self._items) == 1
        if first:  # for the others the reader was told, and has not come yet
            self._tell()

    def close(self, last: T | None = None) -> None:
        """Nothing more will come, but `last`; never waits."""
        with self._room:
            if last is not None:
                self._items.append(last)
            self._closed = True
        self._tell()

    async def batches(self) -> AsyncIterator[list[T]]:
        """Whatever lies ready, as soon as something does."""
        while True:
            await self._news.wait()
            self._news.clear()
            with self._room:
                ready, closed = list(self._items), self._closed
                self._items.clear()
                self._room.notify()
            if ready:
                yield ready
            if closed:
                return

    def _tell(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:
            pass  # the loop is closed, so nobody reads
