"""What is done to a cloud node's processes."""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from ops.chaos.stage import GCS, RAYLET, REPLICA, Staged, member_of, send

Over = contextlib.AbstractContextManager[object]


def _pid(stage: Staged, name: str | None) -> int:
    """Of the node's own process, or of the one of its family of that name."""
    pid = stage.cloud.pid if name is None else member_of(stage.cloud.pid, name)
    assert pid is not None, f"no process of the node is called {name}"
    return pid


def _killed(name: str | None) -> Callable[[Staged], Over]:
    @contextlib.contextmanager
    def fault(stage: Staged) -> Iterator[None]:
        pid = _pid(stage, name)
        send(pid, signal.SIGKILL)
        yield

    return fault


def _stopped(name: str | None) -> Callable[[Staged], Over]:
    @contextlib.contextmanager
    def fault(stage: Staged) -> Iterator[None]:
        pid = _pid(stage, name)
        send(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            send(pid, signal.SIGCONT)

    return fault


def _full(name: str | None) -> Callable[[Staged], Over]:
    """No file of the process may grow: what a full disk says."""

    @contextlib.contextmanager
    def fault(stage: Staged) -> Iterator[None]:
        pid = _pid(stage, name)
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    return fault


@contextlib.contextmanager
def _drained(stage: Staged) -> Iterator[None]:
    """SIGTERM, in the middle of asks."""
    send(stage.cloud.pid, signal.SIGTERM)
    yield


_OF: Final[Mapping[str, str | None]] = {
    "replica": REPLICA,
    "gateway": None,
    "raylet": RAYLET,
    "GCS": GCS,
    "Serve controller": "ServeController",
    "dashboard agent": "DashboardAgent",
    "runtime agent": "RuntimeEnvAgent",
}
"""Processes of a node, and what is in their command lines."""

FAULTS: Final[Mapping[str, Callable[[Staged], Over]]] = {
    **{f"{who} killed": _killed(name) for who, name in _OF.items()},
    **{f"{who} stopped": _stopped(name) for who, name in _OF.items()},
    "replica: disk full": _full(REPLICA),
    "gateway: disk full": _full(None),
    "gateway told to end": _drained,
}
