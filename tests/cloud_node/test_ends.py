"""Every way a cloud node can end or lose something: noticed at once, ended in order, nothing left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud_node.audit_chain import verify
from kvwire.errors import Busy
from ops.certs import Certificates
from tests.cloud_fixture import CloudNode, start_cloud, write_config
from tests.process import python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

QUESTION = "Who keeps the spare key?"
NOTICED_S = 5.0
ENDED_S = 12.0  # with drain_s = 1
DRAIN = {"gateway": {"drain_s": 1.0}}


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A TMPDIR of the test's own: what a node leaves there is what it leaves."""
    with tempfile.TemporaryDirectory(prefix="kt-", dir="/tmp") as name:
        monkeypatch.setenv("TMPDIR", name)
        yield Path(name)
        # Whatever a failed test left.
        python("-c", "from cloud_node.ray_folder import RayFolder; RayFolder.make().remove()")


@pytest.fixture
def node(
    folders: Path, tmp_path: Path, tiny_sharer: Path, tiny_bundle: Path, certificates: Certificates
) -> Iterator[CloudNode]:
    """A cloud node of the test's own."""
    cloud = start_cloud(tmp_path / "cloud", tiny_sharer, tiny_bundle, certificates, DRAIN)
    with cloud.process:
        yield cloud
        cloud.process.kill()


def test_a_killed_replica_is_noticed_and_replaced_and_so_is_a_killed_raylet(
    node: CloudNode, folders: Path
) -> None:
    assert [path.stat().st_mode & 0o777 for path in left_in(folders)] == [0o700]
    with node.channel() as channel:
        kill(node, "ServeReplica")
        began = time.monotonic()
        until(lambda: state(channel) == "NOT_SERVING", NOTICED_S)
        with pytest.raises(Busy):
            node.share(node.request("note-1", QUESTION), timeout_s=30)
        assert time.monotonic() - began < NOTICED_S + 1.0
        until(lambda: state(channel) == "SERVING", 60)
        assert len(node.share(node.request("note-1", QUESTION))) == 3
        kill(node, "/raylet ")
        until(lambda: state(channel) in ("NOT_SERVING", "gone"), NOTICED_S)
    ended_in_order(node, folders, 1, "raylet")


def test_a_killed_gcs_ends_the_node(node: CloudNode, folders: Path) -> None:
    kill(node, "/gcs_server ")
    with node.channel() as channel:
        until(lambda: state(channel) in ("NOT_SERVING", "gone"), NOTICED_S)
    ended_in_order(node, folders, 1, "gcs_server")


def test_sigterm_ends_a_node_whose_raylet_hangs(node: CloudNode, folders: Path) -> None:
    assert len(node.share(node.request("note-1", QUESTION))) == 3
    kill(node, "/raylet ", signal.SIGSTOP)
    node.process.terminate()
    ended_in_order(node, folders, 0, "stopped")


def test_what_a_killed_node_left_ends_with_the_next_start_which_sigterm_ends_too(
    node: CloudNode, folders: Path
) -> None:
    family = family_of(node.process.pid)
    (left,) = left_in(folders)
    node.process.kill()
    node.process.wait()
    assert left.exists()
    with start(node.directory / "cloud.toml") as starting:
        until(lambda: not left.exists() and any(folders.glob("*/r/session_*/logs/raylet.out")), 60)
        assert not any(map(running, family))
        family = family_of(starting.pid)
        starting.terminate()
        assert starting.wait(ENDED_S) == 0
    until(lambda: not any(map(running, family)), 3)
    assert not left_in(folders)


def test_a_ray_that_does_not_start_in_time_is_one_line_and_status_1(
    folders: Path, tmp_path: Path, tiny_sharer: Path, tiny_bundle: Path, certificates: Certificates
) -> None:
    with contextlib.ExitStack() as both:
        commands = []
        for command in (("-m", "cloud_node"), ("-m", "ops.cli", "cloud")):
            settings = {"ray": {"start_timeout_s": 0.2}}
            config = write_config(tmp_path / command[1], tiny_sharer, tiny_bundle, certificates, settings)
            commands.append(both.enter_context(start(config, command)))
        for starting in commands:
            assert starting.wait(60) == 1
            assert starting.stderr is not None
            told = starting.stderr.read().splitlines()
            assert "raise in cloud.toml `[ray] start_timeout_s`" in told[-1]
            assert not any("Traceback" in line for line in told)
    assert not left_in(folders)


def ended_in_order(node: CloudNode, folders: Path, status: int, last: str) -> None:
    """The node ends by itself, its last line says why, and nothing of it is left."""
    family = family_of(node.process.pid)
    assert node.process.wait(ENDED_S) == status
    until(lambda: not any(map(running, family)), 3)
    assert not left_in(folders)
    log = (node.directory / "cloud.log").read_text()
    assert last in log
    assert "Traceback" not in log
    verify(node.directory / "audit.jsonl")


def left_in(folders: Path) -> list[Path]:
    """What Ray has there; torch may keep a cache of its own beside it."""
    return list(folders.glob("*ray*"))


def state(channel: grpc.Channel) -> str:
    """What the health service says, or that nobody is there."""
    try:
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
    except grpc.RpcError:
        return "gone"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))


def until(true: Callable[[], bool], within_s: float) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


def kill(node: CloudNode, name: str, what: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to the process of the node's family with this in its command line."""
    for pid in family_of(node.process.pid):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if name in line:
                os.kill(pid, what)
                return
    raise AssertionError(f"no process {name}")


@contextlib.contextmanager
def start(config: Path, command: tuple[str, ...] = ("-m", "cloud_node")) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        [sys.executable, *command, "--config", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def family_of(pid: int) -> set[int]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {pid}


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
