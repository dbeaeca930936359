"""What does not fit in a replica's memory is refused before it is prefilled."""

import asyncio
import dataclasses
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cloud_node.admission import PositionsHeld
from cloud_node.call import ShareCall
from cloud_node.config import CloudConfig
from cloud_node.replica import Replica
from fuser.models.load import _free_in_groups, free_memory
from kvwire.errors import DeadlineExceeded, TooLarge
from ops.chaos.world import LocalReplicas
from tests.cloud_fixture import request_for

QUESTION = "Who keeps the spare key?"


def small(config: CloudConfig, memory_bytes: int) -> Replica:
    return Replica.load(
        dataclasses.replace(
            config,
            sharer=dataclasses.replace(config.sharer, memory_bytes=memory_bytes, prefix_store=""),
        )
    )


def bytes_of(replica: Replica, positions: int) -> int:
    config = next(iter(replica._sharers.values())).model.config
    kv = (
        2
        * config.num_hidden_layers
        * config.num_key_value_heads
        * (config.hidden_size // config.num_attention_heads)
    )
    return int(4 * positions * (kv + 10 * config.hidden_size + 3 * config.intermediate_size))


async def asked(replica: Replica, document: str, timeout_s: float = 30.0) -> list[Any]:
    call = ShareCall("acme", request_for(replica.describe(), document, QUESTION), None)
    return [part async for part in LocalReplicas(replica).share(call, timeout_s)]


async def test_a_prompt_that_no_memory_has_room_for_is_too_large_before_it_is_prefilled(
    replica: Replica, config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = small(config, bytes_of(replica, 400))
    assert own._room.most == 400 and "memory for 400 positions" in own.where()
    assert len(await asked(own, "note-1")) == 3
    monkeypatch.setattr(own._schedule, "enter", None)  # nothing is prefilled
    with pytest.raises(TooLarge) as error:
        await asked(own, "long")
    assert (error.value.what, error.value.limit) == ("prompt tokens", 400)


async def test_prompts_that_do_not_fit_together_wait_for_one_another_and_no_longer_than_their_deadline(
    replica: Replica, config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = small(config, bytes_of(replica, 130))
    begun, go = threading.Event(), threading.Event()
    genuine = own._schedule._run

    def run(*args: Any) -> None:
        begun.set()
        go.wait(20)
        genuine(*args)

    monkeypatch.setattr(own._schedule, "_run", run)
    first = asyncio.create_task(asked(own, "note-1"))
    assert await asyncio.to_thread(begun.wait, 20)
    try:
        with pytest.raises(DeadlineExceeded):
            await asked(own, "note-2", 0.3)
        second = asyncio.create_task(asked(own, "note-2"))
        await asyncio.sleep(0.3)
        assert not second.done()
    finally:
        go.set()
    assert len(await first) == 3
    assert (await second)[-1].timings["queue"] > 0.2


@pytest.mark.parametrize("tenants", ["xab", "aaa"])
def test_a_long_prompt_is_not_kept_out_by_short_ones_that_come_after_it(tenants: str) -> None:
    room, order = PositionsHeld(100), queue.SimpleQueue[int]()
    holds, long, short = tenants

    def hold(positions: int, tenant: str) -> None:
        with room.held(positions, tenant, lambda: None):
            order.put(positions)

    def given_up() -> None:
        raise DeadlineExceeded

    with ThreadPoolExecutor(3) as threads:
        with room.held(60, holds, lambda: None):
            waiting = [threads.submit(hold, 100, long)]
            until(lambda: len(room._waiting) == 1)
            waiting += [threads.submit(hold, 20, short)]
            until(lambda: len(room._waiting) == 2)
            with pytest.raises(DeadlineExceeded), room.held(10, short, given_up):
                pass
            assert order.empty()
        for done in waiting:
            done.result(10)
    assert [order.get() for _ in waiting] == [100, 20]
    assert not room._waiting and not room._held


def test_a_tenant_that_floods_with_long_prompts_does_not_keep_out_the_short_ones_of_another() -> None:
    room, order, go = PositionsHeld(100), queue.SimpleQueue[str](), threading.Event()

    def hold(positions: int, tenant: str) -> None:
        with room.held(positions, tenant, lambda: None):
            order.put(tenant)
            go.wait(10)

    with ThreadPoolExecutor(6) as threads:
        flood = [threads.submit(hold, 40, "loud") for _ in range(4)]
        until(lambda: len(room._waiting) == 2)
        quiet = threads.submit(hold, 10, "quiet")
        until(lambda: room._held["quiet"] == 10)
        assert [order.get() for _ in range(3)] == ["loud", "loud", "quiet"] and len(room._waiting) == 2
        go.set()
        for done in (*flood, quiet):
            done.result(10)
    assert [order.get() for _ in range(2)] == ["loud", "loud"]
    with ThreadPoolExecutor(6) as threads:
        with room.held(100, "loud", lambda: None):
            flood = [threads.submit(hold, 100, "loud") for _ in range(2)]
            until(lambda: len(room._waiting) == 2)
            flood += [threads.submit(hold, 100, "quiet") for _ in range(2)]
            until(lambda: len(room._waiting) == 4)
        for done in flood:
            done.result(10)
    assert [order.get() for _ in range(4)] == ["quiet", "loud", "quiet", "loud"], "they take turns"
    assert not room._waiting and not room._held and len(room._given) <= 2


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_replica_without_room_for_the_shortest_prompts_does_not_start(config: CloudConfig) -> None:
    with pytest.raises(ValueError, match=r"sharer\.memory_bytes: 9,000 bytes hold"):
        small(config, 9_000)


def test_by_itself_it_takes_of_what_is_free_and_leaves_room_for_what_is_read_ahead(
    replica: Replica, config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud_node.admission.free_memory", lambda device: 10 << 30)
    model = next(iter(replica._sharers.values())).model
    one = bytes_of(replica, 1)
    budget = int(0.8 * (10 << 30)) - config.sharer.prefix_cache_bytes
    assert PositionsHeld.of(model, config).most == budget // one // 2
    none = dataclasses.replace(config, sharer=dataclasses.replace(config.sharer, prefix_store=""))
    assert PositionsHeld.of(model, none).most == budget // one
    two = dataclasses.replace(none, sharer=dataclasses.replace(none.sharer, replicas=2))
    assert (
        PositionsHeld.of(model, two).most == (int(0.4 * (10 << 30)) - config.sharer.prefix_cache_bytes) // one
    )


@pytest.mark.parametrize(
    ("device", "gpus", "replicas", "here"),
    [
        ("cuda", 0.5, 2, 2),
        ("cuda", 0.5, 5, 2),
        ("cuda", 0.3, 2, 2),
        ("cuda", 0.0, 3, 3),
        ("cuda", 1.0, 4, 1),
        ("cpu", 0.0, 3, 1),
    ],
)
def test_replicas_that_share_a_gpu_share_what_is_free_of_it_on_a_cluster_too(
    config: CloudConfig,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    gpus: float,
    replicas: int,
    here: int,
) -> None:
    monkeypatch.setattr("cloud_node.admission.free_memory", lambda device: 1_000_000)
    monkeypatch.setattr("cloud_node.admission.prefill_bytes", lambda model: 1)
    told = {"gpus": gpus, "replicas": replicas, "prefix_cache_bytes": 0, "prefix_store": ""}
    own = dataclasses.replace(
        config,
        sharer=dataclasses.replace(config.sharer, **told),
        ray=dataclasses.replace(config.ray, address="10.0.0.1:6379", token="token"),
    )
    model = SimpleNamespace(device=torch.device(device))
    assert PositionsHeld.of(model, own).most == 800_000 // here


def test_a_control_group_bounds_what_is_free(tmp_path: Path) -> None:
    own, root = tmp_path / "cgroup", tmp_path / "root"
    (root / "pod").mkdir(parents=True)
    (root / "memory" / "pod").mkdir(parents=True)
    (root / "pod" / "memory.max").write_text("1000\n")
    (root / "pod" / "memory.current").write_text("700\n")
    (root / "pod" / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    own.write_text("0::/pod\n")
    assert list(_free_in_groups(own, root)) == [450]
    (root / "pod" / "memory.max").write_text("max\n")
    assert list(_free_in_groups(own, root)) == []
    (root / "pod" / "memory.max").write_text("1000\n")
    (root / "pod" / "slice" / "unit").mkdir(parents=True)
    own.write_text("0::/pod/slice/unit\n")
    assert list(_free_in_groups(own, root)) == [450]
    (root / "pod" / "memory.max").unlink()
    (root / "memory" / "pod" / "memory.limit_in_bytes").write_text("2000\n")
    (root / "memory" / "pod" / "memory.usage_in_bytes").write_text("1500\n")
    (root / "memory" / "pod" / "memory.stat").write_text("total_inactive_file 200\n")
    own.write_text("12:cpu,cpuacct:/pod\n11:memory:/pod\n0::/none\n")
    assert list(_free_in_groups(own, root)) == [700]
    own.unlink()
    assert list(_free_in_groups(own, root)) == []
    assert (free_memory() or 1) > 0


def test_a_system_that_does_not_tell_its_free_memory_is_one_of_which_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 500 kB\n")
    told = {"/proc/meminfo": tmp_path / "meminfo"}
    monkeypatch.setattr("fuser.models.load.Path", lambda name: told.get(name, tmp_path / "none"))
    assert free_memory() is None
