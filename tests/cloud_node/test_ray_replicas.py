"""RayReplicas without Ray: what callers are told while Ray does not answer."""

import asyncio
import threading

import pytest

from cloud_node import ray_replicas
from cloud_node.config import CloudConfig
from cloud_node.ray_replicas import RayReplicas
from kvwire.errors import Busy


async def test_calls_that_wait_are_refused_as_soon_as_ray_does_not_answer(
    config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    replicas = RayReplicas(config)
    monkeypatch.setattr(replicas._ray, "up", lambda: answers.wait(30) and 1)
    replicas._answered_s = asyncio.get_running_loop().time()
    monkeypatch.setattr(ray_replicas, "_STATUS_S", 0.05)
    waiting = asyncio.create_task(replicas._first(asyncio.get_running_loop().create_future()))
    try:
        assert not await replicas.running()
        with pytest.raises(Busy):
            await asyncio.wait_for(waiting, 1.0)
    finally:
        answers.set()
    monkeypatch.setattr(ray_replicas, "_STATUS_S", 5.0)
    assert await replicas.running()
    done = asyncio.get_running_loop().create_future()
    done.set_result("an answer")
    assert await replicas._first(done) == "an answer"
