"""RayReplicas without Ray: what callers are told while Ray does not answer."""

import asyncio
import dataclasses
import threading
import time
from collections.abc import Iterator

import pytest
import ray
from ray import serve
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    ServeStatus,
)

from cloud_node import ray_replicas
from cloud_node.config import CloudConfig, RayConfig
from cloud_node.deployment import APPLICATION, Ray, ReplicasLost
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
    replicas._looked_s, replicas._running = time.monotonic(), 2
    monkeypatch.setattr(replicas._ray, "up", lambda: answers.wait(30) and 1)
    monkeypatch.setattr(ray_replicas, "_STATUS_S", 0.05)
    return replicas


async def test_calls_go_on_while_ray_is_silent_and_the_replicas_told_of_last_are_believed_in(
    silent: RayReplicas,
) -> None:
    answer = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(silent._first(answer))
    for _ in range(3):
        assert await silent.running() == 2
    assert not waiting.done()
    answer.set_result("an answer")
    assert await waiting == "an answer"


async def test_a_ray_that_is_late_with_every_answer_is_heard_all_the_same(
    silent: RayReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silent._ray, "up", lambda: time.sleep(0.2) or 1)
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        told = await silent.running()
    assert told == 1 and not silent._down.is_set()


async def test_silence_while_the_node_itself_was_stopped_is_not_counted_and_half_a_minute_ends_no_node(
    silent: RayReplicas,
) -> None:
    silent._looked_s -= 600.0
    assert await silent.running() == 2
    silent._silent_s = 35.0
    assert await silent.running() == 2
    silent._silent_s = ray_replicas._SILENT_S
    with pytest.raises(ReplicasLost):
        await silent.running()


async def test_calls_that_wait_are_refused_once_ray_is_lost(
    silent: RayReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = asyncio.create_task(silent._first(asyncio.get_running_loop().create_future()))
    monkeypatch.setattr(ray_replicas, "_SILENT_S", 0.0)
    with pytest.raises(ReplicasLost):
        await silent.running()
    with pytest.raises(Busy):
        await asyncio.wait_for(waiting, 1.0)


async def test_calls_that_wait_are_refused_while_ray_tells_of_no_replica(
    silent: RayReplicas, answers: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_replicas, "_STATUS_S", 5.0)
    waiting = asyncio.create_task(silent._first(asyncio.get_running_loop().create_future()))
    monkeypatch.setattr(silent._ray, "up", lambda: 0)
    assert await silent.running() == 0
    with pytest.raises(Busy):
        await asyncio.wait_for(waiting, 1.0)
    monkeypatch.setattr(silent._ray, "up", lambda: 1)
    assert await silent.running() == 1
    done = asyncio.get_running_loop().create_future()
    done.set_result("an answer")
    assert await silent._first(done) == "an answer"


def test_a_cluster_that_does_not_answer_is_asked_once_more(
    config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def init(**how: object) -> None:
        asked.append(how["address"])
        if len(asked) == 1:
            raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr(ray, "init", init)
    there = dataclasses.replace(config, ray=RayConfig("127.0.0.2:6379", insecure_dev=True))
    Ray(there).connect()
    assert asked == ["127.0.0.2:6379"] * 2


def test_replicas_that_work_on_are_up_while_serve_starts_anew_or_their_node_drains(
    config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {"RUNNING": 1, "RECOVERING": 2, "PENDING_MIGRATION": 4, "STARTING": 8, "STOPPING": 16}
    sharer = DeploymentStatusOverview(DeploymentStatus.UPDATING, "", states, "")
    running = ApplicationStatusOverview(ApplicationStatus.RUNNING, "", 0.0, {"sharer": sharer})
    monkeypatch.setattr(serve, "status", lambda: ServeStatus(applications={APPLICATION: running}))
    assert Ray(config).up() == 7
