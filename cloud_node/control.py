"""One thread for Ray's blocking calls, each with a time limit; and what is raised when Ray is gone."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class ReplicasLost(RuntimeError):
    """No replica will take a call again in this process."""


class Control:
    """Calls run one after another. One that hangs holds up those behind it, and nobody waits for it past its limit.

    One thread, so that calls that hang do not pile up; and one that lasts, because Ray's processes are killed when
    the thread that started them ends. It does not keep the process from ending.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._run, name="ray", daemon=True).start()

    async def call(self, function: Callable[[], T], timeout_s: float) -> T:
        """What `function` returns.

        Raises:
            TimeoutError: it, or what is before it, has not ended in time.
            and what `function` raises.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._calls.put((future, function))
        return await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)

    def _run(self) -> None:
        while True:
            future, function = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue  # nobody waits for it any more
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
