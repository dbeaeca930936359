"""The node's own question: health follows its answer, and it costs nothing where others ask."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from cloud_node import canary
from cloud_node.call import Part, ShareCall
from cloud_node.canary import Canary
from kvwire.errors import Busy, DeadlineExceeded
from kvwire.messages import Description
from kvwire.segment import SliceKind
from tests.cloud_node.conftest import LocalCloud, Start

QUESTION = "Who keeps the spare key?"


@contextlib.asynccontextmanager
async def watched(cloud: LocalCloud) -> AsyncIterator[None]:
    """With what `Gateway.serve` watches."""
    task = asyncio.create_task(cloud.service.canary.watch(cloud.gateway._judge))
    try:
        yield
    finally:
        task.cancel()


async def until(true: Callable[[], bool], within_s: float) -> float:
    """Seconds until it is true."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within_s, "it did not come"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_a_replica_that_hangs_is_told_within_five_seconds_and_health_comes_back_with_it(
    start_local: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cloud = await start_local()
    genuine, hangs = cloud.replicas.share, asyncio.Event()

    async def share(call: ShareCall, timeout_s: float) -> AsyncIterator[Part]:
        if hangs.is_set():
            await asyncio.sleep(600)
        async for part in genuine(call, timeout_s):
            yield part

    monkeypatch.setattr(cloud.replicas, "share", share)
    asked = cloud.replicas.timeouts_s
    async with watched(cloud):
        await until(lambda: len(asked) >= 2, 10)
        assert cloud.gateway._health.serving
        hangs.set()
        assert await until(lambda: not cloud.gateway._health.serving, 5.0) > 1.0
        why = "the node's own question is not answered: DEADLINE_EXCEEDED"
        assert cloud.gateway._healthz() == (False, {"why": why})
        assert why in caplog.text
        hangs.clear()
        await until(lambda: cloud.gateway._health.serving, 5.0)
        assert cloud.gateway._healthz() == (True, {})
        assert "the node's own question is answered again" in caplog.text
    assert not cloud.audit.exists() or "Share" not in cloud.audit.read_text()


@pytest.mark.parametrize("takes_s", [0.0, 0.3])
async def test_a_replica_that_fails_every_question_is_not_taken_for_a_busy_one(
    start_local: Start, monkeypatch: pytest.MonkeyPatch, takes_s: float
) -> None:
    cloud = await start_local()

    def run(*_: Any) -> None:
        time.sleep(takes_s)
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(cloud.replicas.replica._schedule, "_run", run)
    async with watched(cloud):
        await until(lambda: not cloud.gateway._health.serving, 6.0)
        assert cloud.service.canary.failure == "INTERNAL"
        assert len(cloud.replicas.timeouts_s) > 1 and min(cloud.replicas.timeouts_s) > 0
        monkeypatch.undo()
        await until(lambda: cloud.gateway._health.serving, 5.0)


async def test_prompts_that_take_all_memory_do_not_keep_the_nodes_own_question_out(
    start_local: Start,
) -> None:
    cloud = await start_local()
    room = cloud.replicas.replica._room
    own = Canary(cloud.replicas, cloud.description, lambda _: None)
    assert own._request is not None
    with room.held(room.most, "acme", lambda: None):
        assert await own._ask(own._request) == ""
    assert own._answered_s > time.monotonic() - 3.0 and own._patience_s < 6.0


async def test_health_comes_back_with_an_answer_to_a_caller(
    start_local: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = await start_local()
    own = cloud.service.canary
    own._pause_s, own.failure, own._patience_s = 30.0, "BUSY", 60.0
    own._answered_s -= 100.0
    monkeypatch.setattr(own, "_ask", _never)
    await cloud.share(cloud.request("note-1", QUESTION))
    assert own._patience_s == 3.0
    async with watched(cloud):
        await until(lambda: not own.failure, 3.0)


async def test_a_question_of_a_caller_counts_as_one_of_the_nodes_own(
    start_local: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary, "_IDLE_S", 1.0)
    cloud = await start_local()
    asked = cloud.replicas.timeouts_s
    async with watched(cloud):
        for _ in range(12):
            await cloud.share(cloud.request("note-1", QUESTION))
            await asyncio.sleep(0.15)
        assert len(asked) == 12
        await until(lambda: len(asked) == 13, 5)


class Replicas:
    """Raises what it is told to; that the time is over, once it is."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked: list[ShareCall] = []
        self.timeouts_s: list[float] = []

    async def share(self, call: ShareCall, timeout_s: float) -> AsyncIterator[Part]:
        self.asked.append(call)
        self.timeouts_s.append(timeout_s)
        error = self.errors[min(len(self.asked), len(self.errors)) - 1]
        if isinstance(error, DeadlineExceeded):
            await asyncio.sleep(timeout_s)
        raise error
        yield  # a generator


@pytest.fixture
async def description(start_local: Start) -> Description:
    return (await start_local()).description


def of_kinds(description: Description, *kinds: SliceKind) -> Description:
    return dataclasses.replace(
        description, bundles=tuple(dataclasses.replace(one, kinds=kinds) for one in description.bundles)
    )


async def test_a_replica_that_says_it_has_no_answer_yet_is_given_more_time_and_a_minute_in_all(
    description: Description, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_IDLE_S", "_PATIENCE_S", "_WORD_S", "_AGAIN_S", "_BUSY_S"):
        monkeypatch.setattr(canary, name, getattr(canary, name) / 20)
    replicas = Replicas(DeadlineExceeded())
    own = Canary(replicas, description, lambda _: None)
    began, told = time.monotonic(), asyncio.Event()

    async def tell() -> None:
        told.set()

    task = asyncio.create_task(own.watch(tell))
    await asyncio.wait_for(told.wait(), 6.0)
    took_s = time.monotonic() - began
    assert own.failure == "DEADLINE_EXCEEDED"
    assert [round(20 * timeout_s) for timeout_s in replicas.timeouts_s[:3]] == [2, 5, 11]
    assert 60 <= 20 * took_s < 75
    await asyncio.sleep(0.3)
    task.cancel()
    # Or one that has become slow would never be heard again.
    assert replicas.timeouts_s[-1] > 20 / 20


async def test_a_slow_device_is_asked_for_a_twentieth_of_its_time(
    start_local: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = await start_local()
    genuine = cloud.replicas.share

    async def share(call: ShareCall, timeout_s: float) -> AsyncIterator[Part]:
        await asyncio.sleep(1.0)
        async for part in genuine(call, timeout_s):
            yield part

    monkeypatch.setattr(cloud.replicas, "share", share)
    own = Canary(cloud.replicas, cloud.description, lambda _: None)
    assert own._request is not None
    assert await own._ask(own._request) == ""
    assert 20 <= own._pause_s <= 30 and 4 <= own._patience_s < 20


async def test_the_reason_is_that_of_the_last_refusal_after_more_than_one_try(
    description: Description, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {"_PATIENCE_S": 0.5, "_AGAIN_S": 0.1, "_WORD_S": 0.1}.items():
        monkeypatch.setattr(canary, name, seconds)
    replicas = Replicas(Busy())
    own = Canary(replicas, description, lambda _: None)
    assert own._request is not None
    assert await own._ask(own._request) == "BUSY"
    assert len(replicas.asked) > 1
    assert len({call.request.request_id for call in replicas.asked}) == len(replicas.asked)
    assert {call.tenant for call in replicas.asked} == {""}


@pytest.mark.parametrize("kind", [SliceKind.SHARED, SliceKind.DRAFT])
async def test_each_kind_that_needs_no_document_is_answered(start_local: Start, kind: SliceKind) -> None:
    cloud = await start_local()
    own = Canary(cloud.replicas, of_kinds(cloud.description, kind), lambda _: None)
    assert own._request is not None and own._request.kind is kind
    assert await own._ask(own._request) == ""


async def test_where_only_excerpts_leave_there_is_nothing_to_ask(description: Description) -> None:
    replicas = Replicas(Busy())
    own = Canary(replicas, of_kinds(description, SliceKind.EXCERPT), lambda _: None)
    await asyncio.wait_for(own.watch(_never), 1.0)
    assert not replicas.asked and not own.failure


async def _never(*_: object) -> Any:
    raise AssertionError
