"""The schedule of one model: what it reads next, what it reads together, and who may overtake whom.

The model has one thread. Calls hand in their steps, a generator of prefills. Short ones are run together, and between
two layers of a long one shorter ones go first. No slice depends on it (`fuser.kv.prefill`).
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from torch import Tensor

from fuser import Cut
from fuser.kv.prefill import Prefill, following
from kvwire.errors import Cancelled, DeadlineExceeded
from kvwire.segment import SegmentSpec

Steps = Generator[Prefill | None, None, None]
Run = Callable[[list[Prefill], Callable[[], None]], None]

_HEADSTART_S: Final = 0.004
"""A position counts as so much waiting: a prompt of n positions is overtaken by one of m that comes no more than
(n - m) times this later. So short ones do not wait for long ones, and long ones wait for a bounded time."""

_POLL_S: Final = 0.05

_LAST_S: Final = 1e9
"""Later than any call: what nobody waits for."""


@dataclass(eq=False, slots=True)
class Ticket:
    """One call's place in the schedule, and how it went.

    arrived_s, begun_s, ended_s: on the monotonic clock; begun_s when the model first ran for it.
    failure: what its steps raised, once it has ended.
    """

    _steps: Steps
    _rank: float
    _stop: CancelToken
    _ended: Callable[[], None]
    arrived_s: float
    begun_s: float | None = None
    ended_s: float | None = None
    failure: BaseException | None = None
    _work: Prefill | None = field(default=None, init=False)
    _due: bool = field(default=False, init=False)  # advanced: its next step can be run
    _alone: bool = False

    @property
    def waited_s(self) -> float:
        """Seconds before the model first ran for it."""
        return (self.begun_s or time.monotonic()) - self.arrived_s

    @property
    def ran_s(self) -> float:
        """Seconds from then to its end, those who overtook it included."""
        return 0.0 if self.begun_s is None else (self.ended_s or time.monotonic()) - self.begun_s


class PrefillScheduler:
    """Runs the steps of many calls on one thread.

    Args:
        run: prefills some prompts together, as `fuser.kv.prefill.prefill_together` of the model; its second argument is
            to be called between layers.
        max_batch: prompts run together at most; 1 for a model whose prompts cannot be packed.
        max_batch_positions: positions run together at most. A longer prompt runs alone.
        least: a prompt of fewer positions than this runs alone.
    """

    def __init__(self, run: Run, *, max_batch: int, max_batch_positions: int, least: int) -> None:
        self._run = run
        self._max_batch, self._max_positions, self._least = max_batch, max_batch_positions, least
        self._waiting: list[Ticket] = []
        self._news = threading.Condition()
        threading.Thread(target=self._serve, name="sharer-model", daemon=True).start()

    def enter(
        self,
        steps: Steps,
        positions: int,
        stop: CancelToken,
        ended: Callable[[], None],
        *,
        last: bool = False,
    ) -> Ticket:
        """Hand in the steps of a call; returns at once.

        Args:
            steps: advanced on the model's thread alone. A prefill it yields is run before it is advanced again, and
                what that failed with is raised in it; None lets others go first where it is their turn.
            positions: of its prompt, for its place in the queue.
            stop: polled before each step.
            ended: called on the model's thread when the steps are through or have failed.
            last: nobody waits for it: it runs where nothing else does, alone, and any call overtakes it.
        """
        now = time.monotonic()
        rank = now + positions * _HEADSTART_S + (_LAST_S if last else 0.0)
        ticket = Ticket(steps, rank, stop, ended, now, _alone=last)
        self._wait(ticket)
        return ticket

    def _serve(self) -> None:
        while True:
            with self._news:
                while not self._waiting:
                    self._news.wait()
            self._round(float("inf"))

    def _round(self, below: float) -> bool:
        """Run one step of what is due, if its rank is below; whether anything was."""
        batch = self._take(below)
        if not batch:
            return False
        now, rank = time.monotonic(), min(ticket._rank for ticket in batch)
        for ticket in batch:
            ticket.begun_s = ticket.begun_s or now
        works = [ticket._work for ticket in batch if ticket._work is not None]
        try:
            if works:
                self._run(works, lambda: self._overtaken(rank))
        except BaseException as error:
            for ticket in batch:
                self._end(ticket, error)
            return True
        for ticket in batch:
            ticket._due = False
            if self._advanced(ticket):
                self._wait(ticket)
        return True

    def _overtaken(self, rank: float) -> None:
        while self._round(rank):
            pass

    def _take(self, below: float) -> list[Ticket]:
        """Those whose next step is run together now, taken from the queue."""
        batch: list[Ticket] = []
        positions = 0
        with self._news:
            ranked = sorted((t for t in self._waiting if t._rank < below), key=lambda t: t._rank)
        for ticket in ranked:
            if len(batch) == self._max_batch or (batch and not self._packs(batch[0])):
                break
            if not ticket._due and not self._advanced(ticket):
                self._leave(ticket)
            elif not batch or (self._packs(ticket) and positions + _size(ticket) <= self._max_positions):
                self._leave(ticket)
                batch.append(ticket)
                positions += _size(ticket)
        return batch

    def _packs(self, ticket: Ticket) -> bool:
        one = ticket._alone or self._max_batch == 1
        return not one and self._least <= _size(ticket) <= self._max_positions

    def _advanced(self, ticket: Ticket) -> bool:
        """Go on to the next step; False when there is none."""
        try:
            ticket._stop.check()
            ticket._work = following(ticket._steps, ticket._work)
        except StopIteration:
            self._end(ticket, None)
        except BaseException as error:
            self._end(ticket, error)
        else:
            ticket._due = True
            return True
        return False

    def _end(self, ticket: Ticket, failure: BaseException | None) -> None:
        ticket.failure, ticket.ended_s = failure, time.monotonic()
        ticket._work = None  # or K and V of its prompt would live until the garbage collector comes by
        ticket._ended()

    def _wait(self, ticket: Ticket) -> None:
        with self._news:
            self._waiting.append(ticket)
            self._news.notify()

    def _leave(self, ticket: Ticket) -> None:
        with self._news:
            self._waiting.remove(ticket)


def _size(ticket: Ticket) -> int:
    return 0 if ticket._work is None else sum(part.positions for part in ticket._work.parts)


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


class Work:
    """What the model's thread does for one call, and what comes from there. Leaving it ends the work."""

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

    def put(self, part: Cut | tuple[SegmentSpec, Tensor]) -> None:
        """Hand over a part, from the model's thread; never waits, or a slow reader would stop the model for all."""
        self._parts.put(part)

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
