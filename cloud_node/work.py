"""What the model's thread does for one call, and what comes from there."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Final

from torch import Tensor

from cloud_node.scheduler import CancelToken, PrefillScheduler, Steps, Ticket
from fuser import Cut
from kvwire.segment import SegmentSpec

_POLL_S: Final = 0.05


class Work:
    """See the module. Leaving it ends the work."""

    def __init__(self, schedule: PrefillScheduler, stop: CancelToken) -> None:
        self._schedule, self._stop = schedule, stop
        self._left = threading.Event()
        self._parts: queue.SimpleQueue[Cut | tuple[SegmentSpec, Tensor] | None] = queue.SimpleQueue()

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *error: object) -> None:
        self._left.set()

    def enter(self, steps: Steps, positions: int, *, last: bool = False) -> Ticket:
        """Hand in the steps of a prompt with this many positions; `last` as the schedule takes it."""
        ended = lambda: self._parts.put(None)  # noqa: E731
        self._ticket = self._schedule.enter(steps, positions, self._stop, ended, last=last)
        return self._ticket

    def emit(self, spec: SegmentSpec, tensor: Tensor) -> None:
        """As `Sharer.steps` takes it; never waits, or a slow reader would stop the model for all."""
        self._parts.put((spec, tensor))

    def announce(self, cut: Cut) -> None:
        """As `Sharer.steps` takes it."""
        self._parts.put(cut)

    def cancelled(self) -> bool:
        """As `Sharer.steps` takes it."""
        return self._left.is_set() or self._stop()

    def parts(self) -> Iterator[Cut | tuple[SegmentSpec, Tensor]]:
        """What is cut, then segments as they come, to the end of the steps; raises what ended these early."""
        while True:
            try:
                part = self._parts.get(timeout=_POLL_S)
            except queue.Empty:
                self._stop.check()
                continue
            if part is None:
                break
            yield part
        if self._ticket.failure is not None:
            raise self._ticket.failure

    def finish(self) -> None:
        """Wait for the end of steps that hand nothing out; raises what ended them early."""
        for _ in self.parts():
            pass
