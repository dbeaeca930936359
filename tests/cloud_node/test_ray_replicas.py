"""RayReplicas without Ray: what callers are told while Ray does not answer."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from cloud_node import ray_replicas
from cloud_node.config import CloudConfig
from cloud_node.ray_replicas import RayReplicas
from kvwire.errors import Busy


@pytest.fixture
def answers() -> Iterator[threading.Event]:
    """Once set, Ray Serve answers again."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def silent(config: CloudConfig, monkeypatch: pytest.MonkeyPatch, answers: threading.Event) -> RayReplicas:
    """Two replicas of a Ray Serve that told of them a moment ago, and then says nothing any more."""
    replicas = RayReplicas(config)
    replicas._answered_s, replicas._running = time.monotonic(), 2
    monkeypatch.setattr(replicas._ray, "up", lambda: answers.wait(30) and 1)
    monkeypatch.setattr(ray_replicas, "_STATUS_S", 0.05)
    return replicas


async def test_calls_go_on_while_ray_is_late_with_one_answer(silent: RayReplicas) -> None:
    answer = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(silent._first(answer))
    assert await silent.running() == 2
    answer.set_result("an answer")
    assert await waiting == "an answer"


async def test_calls_that_wait_are_refused_once_ray_has_been_silent_and_go_on_when_it_answers(
    silent: RayReplicas, answers: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_replicas, "_DOUBTED_S", 0.0)
    waiting = asyncio.create_task(silent._first(asyncio.get_running_loop().create_future()))
    assert await silent.running() == 0
    with pytest.raises(Busy):
        await asyncio.wait_for(waiting, 1.0)
    answers.set()
    monkeypatch.setattr(ray_replicas, "_STATUS_S", 5.0)
    assert await silent.running() == 1
    done = asyncio.get_running_loop().create_future()
    done.set_result("an answer")
    assert await silent._first(done) == "an answer"
