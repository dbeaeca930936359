"""A Ray cluster of two nodes on this machine, each with a loopback address and a raylet of its own."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from typing import Final, Self

from cloud_node.ray_folder import RayFolder
from ops.chaos.stage import RAYLET, REPLICA, member_of, send
from ops.demo.stage import free_port

HEAD, SECOND = "127.0.0.2", "127.0.0.3"
_START_S: Final = 90.0
_LOOK_S: Final = 0.1
_RAY_START: Final = (sys.executable, "-m", "ray.scripts.scripts", "start")
_OPTIONS: Final = (
    *("--block", "--num-cpus=1", f"--object-store-memory={128 << 20}", "--include-log-monitor=false"),
    *("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"),
)


class ClusterFailed(RuntimeError):
    """A node did not come up."""


class Cluster:
    """A context manager. Of each node's one core one replica can have it: so two of them lie on both nodes.

    address, token: for `[ray]`. The head, which has Serve's controller too, is the node that a cloud attaches to.
    """

    def __init__(self) -> None:
        self._folder = RayFolder.make()
        self.token = self._folder.path / "token"
        self.token.write_text(secrets.token_hex(32))
        self.address = f"{HEAD}:{free_port()}"
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self.start(HEAD)
            self.start(SECOND)
        except BaseException:
            self._folder.remove()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for node in self._nodes.values():
            node.kill()
        self._folder.remove()  # with every process that has its log there
        for node in self._nodes.values():
            node.wait()

    def start(self, host: str) -> None:
        """Start a node, for the first time or after it was lost. Raises ClusterFailed."""
        where = [f"--address={self.address}"]
        if host == HEAD:
            port = self.address.rpartition(":")[2]
            where = [
                "--head",
                f"--port={port}",
                f"--temp-dir={self._folder.ray}",
                "--include-dashboard=false",
            ]
        if (lost := self._nodes.get(host)) is not None:
            lost.wait(_START_S)
        log = self._folder.path / f"{host}.log"
        with log.open("wb") as output:
            self._nodes[host] = node = subprocess.Popen(
                [*_RAY_START, f"--node-ip-address={host}", *where, *_OPTIONS],
                stdout=output,
                stderr=output,
                env=os.environ
                | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token)}
                | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"},
            )
        end = time.monotonic() + _START_S
        while b"Ray runtime started" not in log.read_bytes():
            if node.poll() is not None or time.monotonic() > end:
                raise ClusterFailed(f"{host} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(_LOOK_S)

    def lose(self, host: str) -> None:
        """Kill a node's raylet: Ray's other processes there, its replica among them, end after it."""
        send(member_of(self._nodes[host].pid, RAYLET), signal.SIGKILL)

    def has_replica(self, host: str) -> bool:
        """Whether one runs on this node."""
        return member_of(self._nodes[host].pid, REPLICA) is not None
