"""What Ray Serve adds, on a real cloud node: cancellation, deadlines, back-pressure, closed ports."""

import concurrent.futures
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from cloud_node.config import CloudConfig
from cloud_node.deployment import _DIRECT, Ray, told
from cloud_node.ray_folder import RayFolder
from kvwire.errors import Busy, DeadlineExceeded, InternalError
from kvwire.limits import Limits
from kvwire.segment import SliceKind
from kvwire.serde import share_request_to_proto, slice_header_from_proto
from kvwire.v1.sharer_pb2_grpc import SharerServiceStub
from tests.cloud_fixture import CloudNode

QUESTION = "Who keeps the spare key?"
LISTEN = "0A"


def test_slices_stream_and_repeat(cloud: CloudNode) -> None:
    long = QUESTION * 20  # so that its segments leave one by one
    first = cloud.share(cloud.request("note-2", long, kind=SliceKind.SHARED))
    second = cloud.share(cloud.request("note-2", long, kind=SliceKind.SHARED))
    assert len(first) > 4
    assert [frame.data for frame in first[1:-1]] == [frame.data for frame in second[1:-1]]


def test_a_cancelled_call_stops_the_prefill(cloud: CloudNode) -> None:
    request = cloud.request("slow", QUESTION, kind=SliceKind.SHARED)
    with cloud.channel() as channel:
        stub = SharerServiceStub(channel)  # type: ignore[no-untyped-call]
        call = stub.Share(share_request_to_proto(request), timeout=60)
        header = next(call).header
        call.cancel()
    *_, summary = cloud.share(cloud.request("note-1", QUESTION), timeout_s=30)
    line = cloud.audit_of(request.request_id)
    assert (line["decision"], line["segments"]) == ("CANCELLED", 0)
    assert line["bytes"] < slice_header_from_proto(header, Limits()).raw_bytes
    # It took four layers' time before; the model was free after about one.
    assert summary.timings["queue"] < 0.75 * whole_prefill_s(cloud)


def test_a_deadline_stops_the_prefill(cloud: CloudNode) -> None:
    request = cloud.request("slow", QUESTION, kind=SliceKind.SHARED)
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        cloud.share(request, timeout_s=0.6)
    assert time.monotonic() - start < 1.6
    *_, summary = cloud.share(cloud.request("note-1", QUESTION), timeout_s=30)
    assert cloud.audit_of(request.request_id)["decision"] == "DEADLINE_EXCEEDED"
    assert summary.timings["queue"] < 0.75 * whole_prefill_s(cloud)


def test_too_many_calls_are_told_when_to_come_again(cloud: CloudNode) -> None:
    def share(_: int) -> int | Busy:
        try:
            return len(cloud.share(cloud.request("slow", QUESTION), timeout_s=1.5))
        except Busy as busy:
            return busy
        except DeadlineExceeded:
            return 0

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(share, range(16)))
    refused = [outcome for outcome in outcomes if isinstance(outcome, Busy)]
    assert refused
    assert {busy.retry_after_s for busy in refused} == {0.5}
    assert len(cloud.share(cloud.request("note-1", QUESTION), timeout_s=30)) == 3


def test_nothing_but_the_gateway_listens_and_only_on_loopback(cloud: CloudNode) -> None:
    inodes = socket_inodes(family_of(cloud.process.pid))
    addresses = {address for inode, address in listeners().items() if inode in inodes}
    port = int(cloud.address.rpartition(":")[2])
    assert ("127.0.0.1", port) in addresses
    assert {host for host, _ in addresses} == {"127.0.0.1"}
    with pytest.raises(grpc.FutureTimeoutError):  # and Serve's own proxies are off
        grpc.channel_ready_future(grpc.insecure_channel("127.0.0.1:9000")).result(timeout=0.3)


def test_only_what_the_replicas_need_runs(cloud: CloudNode) -> None:
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in family_of(cloud.process.pid)]
    assert not [line for line in lines if "monitor.py" in line or "dashboard.py" in line]


def test_a_replica_has_the_priority_of_its_node(cloud: CloudNode) -> None:
    replicas = [
        pid
        for pid in family_of(cloud.process.pid)
        if b"ServeReplica" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert replicas
    own = os.getpriority(os.PRIO_PROCESS, cloud.process.pid)
    assert all(os.getpriority(os.PRIO_PROCESS, pid) == own for pid in replicas)


def test_ray_serve_knows_the_settings_that_it_is_given() -> None:
    ask = f"""
from types import SimpleNamespace
from cloud_node.config import RayConfig
from cloud_node.deployment import Ray
ray = Ray(SimpleNamespace(ray=RayConfig()))
ray.prepare()
from ray.serve._private import constants
print([getattr(constants, name) for name in {list(_DIRECT)!r}])
ray.clean_up(spare_children=True)
"""
    said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[True, False, False, 2147483647]"


def test_a_ray_that_fails_is_started_once_more_and_then_named(
    config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    started: list[dict[str, Any]] = []

    def init(**settings: Any) -> None:
        started.append(settings)
        raise Exception("The current node timed out during startup.\nMany lines more.")

    monkeypatch.setattr(ray, "init", init)
    dealings = Ray(config)
    dealings._folder = RayFolder.make()
    try:
        with pytest.raises(
            RuntimeError, match=r"^Ray did not start: The current node timed out during startup.$"
        ):
            dealings.connect()
    finally:
        dealings.clean_up(spare_children=False)
    assert len(started) == 2


def test_a_call_that_lost_its_replica_is_told_when_to_come_again() -> None:
    from ray import exceptions

    lost = [
        exceptions.ActorDiedError(),
        exceptions.NodeDiedError("the node is gone"),
        exceptions.RaySystemError("no raylet"),
    ]
    assert [type(told(error, 0.5)) for error in lost] == [Busy, Busy, Busy]
    assert isinstance(told(ValueError("a replica's own"), 0.5), InternalError)


def whole_prefill_s(cloud: CloudNode) -> float:
    *_, summary = cloud.share(cloud.request("slow", QUESTION, kind=SliceKind.SHARED), timeout_s=60)
    return float(summary.timings["prefill"])


def family_of(pid: int) -> set[int]:
    """A process and all that descend from it or share its session."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def socket_inodes(pids: set[int]) -> set[str]:
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(descriptor.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    return inodes


def listeners() -> dict[str, tuple[str, int]]:
    """Inode -> (host, port) of every listening TCP socket."""
    found: dict[str, tuple[str, int]] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN:
                found[fields[9]] = _address(fields[1])
    return found


def _address(raw: str) -> tuple[str, Any]:
    host, _, port = raw.partition(":")
    words = [bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8)]
    packed = b"".join(words)
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed), int(port, 16)
    text = socket.inet_ntop(socket.AF_INET6, packed)
    return ("127.0.0.1" if text in ("::1", "::ffff:127.0.0.1") else text), int(port, 16)
