"""Turns at the replicas: tenants in rotation, and one place that no tenant alone can fill."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator

from kvwire.errors import Busy


class Turns:
    """Hands calls to the replicas as these have room. Used within one event loop.

    One tenant's calls never have all of the room (where there is more than one place), so that a call of another one
    gets to a replica at once, where short prompts overtake long ones. Those that wait are served tenant by tenant.

    Args:
        room: calls that the replicas take at once, all together.
        waiting: calls that may wait for room, of all tenants.
        retry_after_s: when calls beyond that are told to come again.
    """

    def __init__(self, room: int, waiting: int, retry_after_s: float) -> None:
        self._room, self._each = room, max(1, room - 1)
        self._waiting, self._retry_after_s = waiting, retry_after_s
        self._under_way: Counter[str] = Counter()
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def taken(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it while the context lasts.

        Raises:
            Busy: too many wait already.
        """
        await self._take(tenant)
        try:
            yield
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
        return self._under_way.total() < self._room and self._under_way[tenant] < self._each

    def _give_back(self, tenant: str) -> None:
        self._under_way[tenant] -= 1
        if not self._under_way[tenant]:
            del self._under_way[tenant]
        for waiting, queue in list(self._queues.items()):
            while queue and queue[0].cancelled():  # its call has ended, and is about to leave the queue
                queue.popleft()
            served = bool(queue) and self._free(waiting)
            if served:
                self._under_way[waiting] += 1
                queue.popleft().set_result(None)
                self._queues.move_to_end(waiting)
            if not queue:
                del self._queues[waiting]
            if served:
                return

    def _forget(self, tenant: str, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(tenant, deque())
        if turn not in queue:
            return  # passed over already
        queue.remove(turn)
        if not queue:
            del self._queues[tenant]
