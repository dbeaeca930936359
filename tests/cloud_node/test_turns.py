import asyncio
import contextlib
import random

import pytest

from cloud_node.admission import Turns
from kvwire.errors import Busy


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Calls:
    """Calls that stay until they are let go."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.began: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._free: dict[str, asyncio.Event] = {}

    async def enter(self, name: str) -> None:
        self._free[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._call(name))
        await settle()

    async def _call(self, name: str) -> None:
        async with self._turns.taken(name[0]):
            self.began.append(name)
            await self._free[name].wait()

    async def end(self, name: str) -> None:
        self._free[name].set()
        await settle()


async def test_one_tenant_leaves_a_place_to_another() -> None:
    calls = Calls(Turns(room=3, waiting=10, retry_after_s=1.0))
    for name in ("a1", "a2", "a3", "a4"):
        await calls.enter(name)
    assert calls.began == ["a1", "a2"]
    await calls.enter("b1")
    assert calls.began == ["a1", "a2", "b1"]
    await calls.end("b1")
    assert calls.began == ["a1", "a2", "b1"], "the place is kept for others"
    await calls.end("a1")
    assert calls.began == ["a1", "a2", "b1", "a3"]


async def test_who_waits_gets_the_room_of_a_replica_that_is_added() -> None:
    turns = Turns(room=2, waiting=10, retry_after_s=1.0)
    calls = Calls(turns)
    for name in ("a1", "b1", "a2", "a3", "b2"):
        await calls.enter(name)
    turns.resize(4)
    await settle()
    assert calls.began == ["a1", "b1", "a2", "b2"]
    turns.resize(2)
    for name in ("a1", "a2"):
        await calls.end(name)
    assert calls.began == ["a1", "b1", "a2", "b2"], "of a replica that is taken away no place comes free"
    await calls.end("b1")
    assert calls.began[4:] == ["a3"]


async def test_tenants_that_wait_take_turns() -> None:
    calls = Calls(Turns(room=2, waiting=10, retry_after_s=1.0))
    for name in ("a1", "b1", "a2", "a3", "b2", "c1"):
        await calls.enter(name)
    assert calls.began == ["a1", "b1"]
    for name in ("a1", "b1", "a2", "b2"):
        await calls.end(name)
    assert calls.began == ["a1", "b1", "a2", "b2", "c1", "a3"]


async def test_one_place_alone_serves_everyone() -> None:
    calls = Calls(Turns(room=1, waiting=10, retry_after_s=1.0))
    for name in ("a1", "a2"):
        await calls.enter(name)
    await calls.end("a1")
    assert calls.began == ["a1", "a2"]


async def test_a_tenant_with_weight_is_served_that_many_times_in_a_row() -> None:
    calls = Calls(Turns(room=1, waiting=99, retry_after_s=1.0, weights={"a": 3}))
    names = [f"{tenant}{number}" for number in range(1, 10) for tenant in "abc"]
    await calls.enter("x")
    for name in names:
        await calls.enter(name)
    for _ in range(15):
        await calls.end(calls.began[-1])
    order = "".join(name[0] for name in calls.began[1:])
    assert order == "aaabc" * 3, "three of five turns, and nobody starves"
    for _ in range(12):
        await calls.end(calls.began[-1])
    assert sorted(calls.began[1:]) == sorted(names)


async def test_too_many_that_wait_are_told_to_come_again() -> None:
    calls = Calls(Turns(room=1, waiting=1, retry_after_s=2.5))
    for name in ("a1", "a2", "b1"):
        await calls.enter(name)
    with pytest.raises(Busy) as error:
        await calls.tasks["b1"]
    assert error.value.retry_after_s == 2.5


async def test_whoever_stops_waiting_leaves_nothing_behind() -> None:
    turns = Turns(room=2, waiting=50, retry_after_s=1.0)
    chance = random.Random(7)

    async def call(tenant: str) -> None:
        with contextlib.suppress(TimeoutError, Busy):
            async with asyncio.timeout(chance.random() * 0.02), turns.taken(tenant):
                await asyncio.sleep(chance.random() * 0.01)

    await asyncio.gather(*(call(chance.choice("abc")) for _ in range(400)))
    assert not turns._under_way and not turns._queues


async def test_a_call_that_stops_waiting_as_its_turn_comes_keeps_no_place() -> None:
    turns, end = Turns(room=2, waiting=4, retry_after_s=1.0), asyncio.Event()

    async def call() -> None:
        async with turns.taken("a"):
            await end.wait()

    calls = [asyncio.create_task(call()) for _ in range(3)]
    await settle()
    end.set()
    calls[1].cancel()
    async with asyncio.timeout(5):
        ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in ended] == [type(None), asyncio.CancelledError, type(None)]
    assert not turns._under_way and not turns._queues
