"""Threads for calls that may hang, which hold up nobody."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Control:
    """Calls run in order, as many at once as there are threads. Nobody waits for one that hangs past its limit.

    The number of threads is fixed, so that calls that hang do not pile up; threads last, because Ray's processes are
    killed when the thread that started them ends. They do not keep the process from ending.
    """

    def __init__(self, threads: int = 1) -> None:
        self._calls: deque[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = deque()
        self._more = threading.Condition()
        for _ in range(threads):
            threading.Thread(target=self._run, daemon=True).start()

    async def call(self, function: Callable[[], T], timeout_s: float | None = None) -> T:
        """What `function` returns.

        Raises:
            TimeoutError: it, or what is before it, has not ended in time.
            and what `function` raises.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        call = (future, function)
        with self._more:
            self._calls.append(call)
            self._more.notify()
        try:
            # Not `wait_for`, which in Python 3.11 forgets a cancellation that comes together with the result.
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(future)
        finally:
            with self._more, contextlib.suppress(ValueError):
                self._calls.remove(call)  # given up before it began

    def _run(self) -> None:
        while True:
            with self._more:
                self._more.wait_for(lambda: self._calls)
                future, function = self._calls.popleft()
            if not future.set_running_or_notify_cancel():
                continue  # nobody waits for it any more
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
