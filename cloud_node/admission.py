"""Who is let in: places for each tenant and host, one slice for each request id, turns at the replicas, and room in a
model's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloud_node.config import CloudConfig
from fuser import free_memory, prefill_bytes
from kvwire.errors import Busy, InvalidRequest


class Places:
    """Counts who holds a place. Used within one event loop.

    Args:
        most: places in all.
        each: places that one value of a key may hold, by key: {"tenant": 16, "host": 32}.
        retry_after_s: when a caller without a place is told to come again.
    """

    def __init__(self, most: int, each: Mapping[str, int], retry_after_s: float) -> None:
        self._most, self._each, self._retry_after_s = most, dict(each), retry_after_s
        self._held: Counter[tuple[str, str]] = Counter()
        self._taken = 0

    @contextlib.contextmanager
    def held(self, **who: str) -> Iterator[None]:
        """Hold a place while the context lasts.

        Args:
            who: the caller's value of each key.

        Raises:
            Busy: there is none left, in all or for one of these values.
        """
        keys = [(key, who[key]) for key in self._each]
        if self._taken >= self._most or any(self._held[at] >= self._each[at[0]] for at in keys):
            raise Busy(self._retry_after_s)
        self._taken += 1
        self._held.update(keys)
        try:
            yield
        finally:
            self._taken -= 1
            for at in keys:
                self._held[at] -= 1
                if not self._held[at]:
                    del self._held[at]  # or every caller there ever was would be remembered


_WINDOW_S: Final = 600.0
_MAX_IDS: Final = 100_000


class RecentRequests:
    """Refuses a request id that the same tenant used within the window.

    A request that failed before anything of it was sent may come again under its id: `forget` it.
    """

    def __init__(self, window_s: float = _WINDOW_S, max_ids: int = _MAX_IDS) -> None:
        self._window_s = window_s
        self._max_ids = max_ids
        self._seen: OrderedDict[tuple[str, bytes], float] = OrderedDict()

    def enter(self, tenant: str, request_id: bytes) -> None:
        """Remember a request.

        Raises:
            InvalidRequest: its id was used before.
        """
        now = time.monotonic()
        while self._seen and (
            len(self._seen) >= self._max_ids or now - next(iter(self._seen.values())) > self._window_s
        ):
            self._seen.popitem(last=False)
        if (tenant, request_id) in self._seen:
            raise InvalidRequest("the request id was used before")
        self._seen[tenant, request_id] = now

    def forget(self, tenant: str, request_id: bytes) -> None:
        """Let the id be used again."""
        self._seen.pop((tenant, request_id), None)


class Turns:
    """Hands calls to the replicas as these have room. Used within one event loop.

    One tenant's calls never have all of the room (where there is more than one place), so that a call of another one
    gets to a replica at once, where short prompts overtake long ones. Those that wait are served tenant by tenant, each
    for as many calls in a row as it has weight.

    Args:
        room: calls that the replicas take at once, all together.
        waiting: calls that may wait for room, of all tenants.
        retry_after_s: when calls beyond that are told to come again.
        weights: by tenant; 1 for any other.
    """

    def __init__(
        self, room: int, waiting: int, retry_after_s: float, weights: Mapping[str, int] | None = None
    ) -> None:
        self._room, self._weights = room, dict(weights or {})
        self._served: Counter[str] = Counter()  # of those that wait, in a row
        self._waiting, self._retry_after_s = waiting, retry_after_s
        self._under_way: Counter[str] = Counter()
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def taken(self, tenant: str) -> AsyncIterator[float]:
        """Wait for a turn, and have it while the context lasts; gives the seconds waited.

        Raises:
            Busy: too many wait already.
        """
        began = time.monotonic()
        await self._take(tenant)
        try:
            yield time.monotonic() - began
        finally:
            self._give_back(tenant)

    async def _take(self, tenant: str) -> None:
        if tenant not in self._queues and self._free(tenant):
            self._under_way[tenant] += 1
            return
        if sum(map(len, self._queues.values())) >= self._waiting:
            raise Busy(self._retry_after_s)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._give_back(tenant)  # it came in the same moment
            else:
                self._forget(tenant, turn)
            raise

    def _free(self, tenant: str) -> bool:
        return self._under_way.total() < self._room and self._under_way[tenant] < max(1, self._room - 1)

    def _give_back(self, tenant: str) -> None:
        self._under_way[tenant] -= 1
        if not self._under_way[tenant]:
            del self._under_way[tenant]
        self._serve()

    def resize(self, room: int) -> None:
        """So many calls from now on: who waits gets what is new of it, and nobody's call is ended for less."""
        self._room = room
        while self._serve():
            pass

    def _serve(self) -> bool:
        """Whether one that waited got a turn."""
        for waiting, queue in list(self._queues.items()):
            while queue and queue[0].cancelled():  # its call has ended, and is about to leave the queue
                queue.popleft()
            served = bool(queue) and self._free(waiting)
            if served:
                self._under_way[waiting] += 1
                queue.popleft().set_result(None)
                self._served[waiting] += 1
                if self._served[waiting] >= self._weights.get(waiting, 1):
                    self._queues.move_to_end(waiting)
                    del self._served[waiting]
            if not queue:
                self._end_queue(waiting)
            if served:
                return True
        return False

    def _forget(self, tenant: str, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(tenant, deque())
        if turn not in queue:
            return  # passed over already
        queue.remove(turn)
        if not queue:
            self._end_queue(tenant)

    def _end_queue(self, tenant: str) -> None:
        del self._queues[tenant]
        self._served.pop(tenant, None)


_OF_FREE: Final = 0.8
_LEAST_POSITIONS: Final = 64
_ANY_POSITIONS: Final = 1 << 30
"""Where the system does not tell what is free (only Linux does, and a GPU) nothing is bounded but by memory_bytes."""
_POLL_S: Final = 0.05
_OTHERS: Final = 8
"""One part in so many is left to other tenants."""


@dataclass(eq=False, frozen=True, slots=True)
class _Waiting:
    """A prompt that waits for room."""

    tenant: str
    positions: int


class PositionsHeld:
    """Positions of prompts whose K and V one model's memory holds at once; used from any thread.

    Prompts that do not fit wait. The next is of the tenant that was given fewest positions of late, and the first of
    its own; until it fits nobody goes before it, or short ones would keep a long one out for ever. What a tenant has
    beside a first prompt leaves a part of the memory free, so that other tenants' short ones get in.

    Args:
        most: of all prompts together, and so of one.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._held, self._news = Counter[str](), threading.Condition()
        self._waiting: list[_Waiting] = []
        # Fair queueing by start tags: where the prompt let in last began, and where each tenant's last one ended.
        self._now, self._given = 0, dict[str, int]()

    @classmethod
    def of(cls, model: Any, config: CloudConfig) -> PositionsHeld:
        """As many as the memory of a model that is loaded has room for.

        Raises:
            ValueError: fewer than `_LEAST_POSITIONS`.
        """
        own = config.sharer
        budget = own.memory_bytes
        if not budget:
            if (free := free_memory(model.device)) is None:
                return cls(_ANY_POSITIONS)
            sharing = own.most_replicas if not own.gpus else min(own.most_replicas, int(1 / own.gpus))
            here = sharing if model.device.type != "cpu" or config.ray.address == "local" else 1
            budget = int(_OF_FREE * free / here) - own.prefix_cache_bytes
        most = budget // prefill_bytes(model) // (1 if config.prefix_files is None else 2)
        if most < _LEAST_POSITIONS:
            raise ValueError(
                f"sharer.memory_bytes: {max(0, budget):,} bytes hold {max(0, most):,} positions of prompts, and "
                f"{_LEAST_POSITIONS} are the least: give the replica more memory, or lower prefix_cache_bytes"
            )
        return cls(most)

    @contextlib.contextmanager
    def held(self, positions: int, tenant: str, check: Callable[[], None]) -> Iterator[float]:
        """Wait for room for some, and hold it while the context lasts; gives the seconds waited.

        Args:
            positions: at most `most`.
            check: asked again and again meanwhile; what it raises ends the wait.
        """
        began, own = time.monotonic(), _Waiting(tenant, positions)
        with self._news:
            self._waiting.append(own)
            try:
                while self._next() is not own or self._held.total() + positions > self.most:
                    check()
                    self._news.wait(_POLL_S)
                self._now = self._begins(tenant)
                self._given[tenant] = self._now + positions
                self._given = {who: ended for who, ended in self._given.items() if ended > self._now}
                self._held[tenant] += positions
            finally:
                self._waiting.remove(own)
                self._news.notify_all()
        try:
            yield time.monotonic() - began
        finally:
            with self._news:
                self._held[tenant] -= positions
                if not self._held[tenant]:
                    del self._held[tenant]
                if not (self._held or self._waiting):
                    self._given.clear()  # nobody is before anybody, and of tenants that came once nothing stays
                self._news.notify_all()

    def _next(self) -> _Waiting | None:
        """The one that is let in as soon as it fits."""
        firsts: dict[str, _Waiting] = {}
        for one in self._waiting:
            firsts.setdefault(one.tenant, one)
        return min(filter(self._may, firsts.values()), key=lambda one: self._begins(one.tenant), default=None)

    def _begins(self, tenant: str) -> int:
        return max(self._now, self._given.get(tenant, 0))

    def _may(self, one: _Waiting) -> bool:
        own = self._held[one.tenant]
        return not own or own + one.positions <= self.most - self.most // _OTHERS
