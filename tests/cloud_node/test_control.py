"""Control: calls that hang hold up nobody past the limit."""

import asyncio
import threading
import time

import pytest

from cloud_node.admission import Control


def test_what_a_call_returns_or_raises_comes_back() -> None:
    async def ask() -> int:
        control = Control()
        with pytest.raises(ZeroDivisionError):
            await control.call(lambda: 1 // 0, 5.0)
        return await control.call(lambda: 7, 5.0)

    assert asyncio.run(ask()) == 7


def test_calls_go_on_beside_some_that_hang_and_those_given_up_wait_for_nothing() -> None:
    free = threading.Event()
    ran: list[int] = []

    async def ask() -> None:
        control = Control(threads=2)
        hanging = asyncio.create_task(control.call(free.wait))
        assert await control.call(lambda: 7, 5.0) == 7
        more = asyncio.create_task(control.call(free.wait))
        await asyncio.sleep(0)  # so that it comes first
        for number in range(5):
            with pytest.raises(TimeoutError):
                await control.call(lambda number=number: ran.append(number), 0.02)  # type: ignore[misc]
        assert not control._calls
        free.set()
        await asyncio.gather(hanging, more)
        await control.call(lambda: ran.append(7), 5.0)

    asyncio.run(ask())
    assert ran == [7]


def test_calls_that_hang_end_at_their_limit_and_do_not_pile_up() -> None:
    free = threading.Event()

    async def ask() -> int:
        control = Control()
        before = threading.active_count()
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await control.call(free.wait, 0.02)
        assert threading.active_count() == before
        free.set()
        return await control.call(lambda: 7, 5.0)

    assert asyncio.run(ask()) == 7


def test_a_call_that_is_cancelled_as_its_result_comes_is_cancelled() -> None:
    async def ask() -> None:
        control, go = Control(), threading.Event()
        call = asyncio.create_task(control.call(go.wait, 5.0))
        await asyncio.sleep(0.05)
        go.set()
        time.sleep(0.1)  # holds the loop: the result and the cancellation meet in one round of it
        asyncio.get_running_loop().call_soon(call.cancel)
        await call

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(ask())
