"""The private folder of a Ray started here, and the end of everything that lives in it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

_PREFIX: Final = "kvw-ray-"
# Below it Ray puts its sockets, of which Linux takes 107 bytes as the path.
_SOCKET: Final = f"/{_PREFIX}12345678/r/session_2000-01-01_00-00-00_000000_1234567/sockets/plasma_store"
_LONGEST_PARENT: Final = 107 - len(_SOCKET)
_KILL_S: Final = 5.0


class RayFolder:
    """A folder of mode 0700, locked by its owner while the owner lives: one that can be locked has lost him."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def make(cls) -> RayFolder:
        """Remove what dead owners left, and make a folder in TMPDIR, or in /tmp where TMPDIR's path is too long."""
        parent = os.path.realpath(tempfile.gettempdir())
        if len(os.fsencode(parent)) > _LONGEST_PARENT:
            logger.info("TMPDIR %s is too long a path for Ray's sockets: /tmp is taken", parent)
            parent = "/tmp"
        for stale in Path(parent).glob(f"{_PREFIX}*"):
            if (lock := _lock(stale)) is not None:
                logger.warning("%s is left from a node that was killed: removed", stale)
                cls(stale, lock).remove()
        while True:
            path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            lock = _lock(path)
            if lock is not None:
                return cls(path, lock)  # else another node has just taken it for a stale one

    @property
    def ray(self) -> Path:
        """What Ray may take as its own: it opens the folder it is given to everyone."""
        return self.path / "r"

    def end_users(self) -> None:
        """Kill every process but this one that writes to a file in the folder, and wait until they are gone."""
        _end(self.path, spare_children=False)

    def remove(self, *, spare_children: bool = False) -> None:
        """Delete the folder, and kill whatever still lives in it.

        Args:
            spare_children: leave this process's own children stopped; the kernel kills them when it ends. A Ray that
                hangs in this process would end it with an abort as soon as they are gone.
        """
        _remove(self.path, spare_children)
        os.close(self._lock)


def _lock(path: Path) -> int | None:
    """A descriptor that holds the folder's lock, or None: another process has it, or the folder is gone or not ours."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        here, locked = path.stat(), os.fstat(descriptor)
        if locked.st_uid == os.getuid() and (here.st_dev, here.st_ino) == (locked.st_dev, locked.st_ino):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _remove(path: Path, spare_children: bool) -> None:
    end = time.monotonic() + _KILL_S
    while path.exists() and time.monotonic() < end:  # a process that is just starting may write once more
        for pid in _users(path):
            _send(pid, signal.SIGSTOP)  # so that nobody writes what is being deleted
        shutil.rmtree(path, ignore_errors=True)
        _end(path, spare_children)
    if path.exists():
        logger.error("%s could not be removed", path)


def _end(path: Path, spare_children: bool) -> None:
    end = time.monotonic() + _KILL_S
    while time.monotonic() < end:
        users = {pid for pid in _users(path) if not (spare_children and _parent(pid) == os.getpid())}
        if not users:
            return
        for pid in users:
            _send(pid, signal.SIGKILL)
        time.sleep(0.02)


def _send(pid: int, what: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, what)


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _users(path: Path) -> Iterator[int]:
    """Processes of this user, but this one, that write to a file in the folder: each of Ray's has its log there.

    Not by parents, whom orphans have lost, nor by names, which Ray's workers change. Who only reads there is none of
    Ray's: a person who follows a log.
    """
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # gone, or another user's
            pid = int(descriptor.parts[2])
            inside = str(descriptor.readlink()).startswith(f"{path}/")
            if inside and pid != os.getpid() and _writes(pid, descriptor.name):
                yield pid


def _writes(pid: int, descriptor: str) -> bool:
    """Whether a process holds one of its descriptors open for writing."""
    lines = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text().splitlines()
    flags = next(int(line.split()[1], 8) for line in lines if line.startswith("flags:"))
    return flags & os.O_ACCMODE != os.O_RDONLY
