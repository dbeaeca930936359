"""The same world with its cloud node as a process of its own, on Ray: to be killed, stopped and started again."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from fuser.config import to_dict
from ops.chaos.trials import TinyPair
from ops.chaos.world import TinyWorld
from ops.demo.process import NodeProcess
from ops.demo.stage import CLOUD_START_S, EDGE_START_S, free_port, write_toml

if TYPE_CHECKING:
    from cloud_node.config import CloudConfig
    from edge_node import EdgeConfig


class Staged(TinyWorld):
    """A context manager, as `TinyWorld`. `cloud` is the node's process, `edge_process` that of an edge, once started.

    Args:
        sharer: further settings of `cloud_node.config.SharerConfig`.
        changes: of the cloud's configuration.
    """

    def __init__(
        self,
        folder: Path,
        cast: TinyPair | None = None,
        *,
        sharer: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        super().__init__(folder, cast)
        self.config = dataclasses.replace(
            self.config,
            listen=f"127.0.0.1:{free_port()}",
            sharer=dataclasses.replace(self.config.sharer, **(sharer or {})),
            **changes,
        )
        write_config(folder / "cloud.toml", self.config)
        self.edge_process: NodeProcess | None = None

    def __enter__(self) -> Self:
        """Start the cloud node and wait until it can answer."""
        import torch

        # The truth is made in this process: with other threads a product of a few rows has other bits on some CPUs.
        torch.set_num_threads(max(1, int(self.config.sharer.cpus)))
        self.start_cloud()
        return self

    def __exit__(self, *error: object) -> None:
        for node in (self.cloud, self.edge_process):
            if node is not None:
                node.begin_to_stop()
                node.wait()
                node.kill()
        self._written.close()

    def start_cloud(self) -> None:
        """For the first time, or after it has ended. Raises NodeFailed."""
        self.cloud = NodeProcess("cloud", self.folder / "cloud.toml", self.folder / "cloud.log")
        self.address = self.cloud.address(CLOUD_START_S)

    @contextlib.contextmanager
    def second_node(self, name: str = "second") -> Iterator[Callable[[], NodeProcess]]:
        """Another cloud node over the same documents, which edges made from now on fall back to.

        Gives what starts it: the first time, and again after it has ended.
        """
        listen, audit = f"127.0.0.1:{free_port()}", str(self.folder / f"{name}.jsonl")
        telemetry = dataclasses.replace(self.config.telemetry, listen=None)
        config = dataclasses.replace(self.config, listen=listen, audit=audit, telemetry=telemetry)
        write_config(self.folder / f"{name}.toml", config)
        self.fallbacks = (listen,)
        started: list[NodeProcess] = []

        def start() -> NodeProcess:
            node = NodeProcess("cloud", self.folder / f"{name}.toml", self.folder / f"{name}.log")
            started.append(node)
            node.address(CLOUD_START_S)
            return node

        try:
            yield start
        finally:
            for node in started:
                node.begin_to_stop()
                node.wait()
                node.kill()

    def start_edge(self) -> str:
        """An edge in a process of its own, as `start_cloud`; the address of its API."""
        edge = self.edge(self.address, 2.0)
        write_config(
            self.folder / "edge.toml",
            dataclasses.replace(edge, api=dataclasses.replace(edge.api, listen="127.0.0.1:0")),
        )
        self.edge_process = NodeProcess("edge", self.folder / "edge.toml", self.folder / "edge.log")
        return self.edge_process.address(EDGE_START_S)


def write_config(path: Path, config: CloudConfig | EdgeConfig) -> None:
    """As the file that loads as it."""
    write_toml(path, *_split(to_dict(config)))


def _split(config: dict[str, Any], under: str = "") -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Top values, and tables of all depths by their dotted names; no None among them."""
    top = {key: value for key, value in config.items() if value is not None and not isinstance(value, dict)}
    tables: dict[str, dict[str, Any]] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            own, deeper = _split(value, f"{under}{key}.")
            tables |= {f"{under}{key}": own, **deeper}
    return top, tables


def family_of(pid: int) -> dict[int, str]:
    """Its children and theirs, with their command lines."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    found = {}
    for child in family - {pid}:
        with contextlib.suppress(OSError):
            found[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


REPLICA: Final = "ServeReplica"
RAYLET: Final = "/raylet "
GCS: Final = "/gcs_server "


def members_of(pid: int, name: str) -> set[int]:
    """Those of its family with this in their command line."""
    return {child for child, line in family_of(pid).items() if name in line}


def member_of(pid: int, name: str) -> int | None:
    """The first of them."""
    return min(members_of(pid, name), default=None)


def send(pid: int | None, what: signal.Signals) -> None:
    """To a process, if it is there."""
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)
