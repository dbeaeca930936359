"""Files that are there whole or not at all whenever a process is killed; directories that one process writes to."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` when the block ends, and not when it raises."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # another process may write the same file
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `path` as one JSON value, whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def file_bytes(path: Path) -> int:
    """The size of a file that is about to be read.

    Raises:
        OSError: there is none, or it is no regular file: reading a pipe would wait for ever.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return found.st_size


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file that lines are added to, made with its folder if absent; one not ended is cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    raw = path.read_bytes()
    size = raw.rfind(b"\n") + 1
    if size < len(raw):
        with path.open("r+b") as file:
            file.truncate(size)
    return raw[:size].splitlines()


@contextmanager
def directory_lock(directory: Path, doing: str) -> Iterator[None]:
    """Keeps other processes from doing the same in a directory, which is made if absent.

    Raises:
        RuntimeError: another one is at it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(directory / ".lock", timeout=0):
            yield
    except Timeout as error:
        busy = f"another process is {doing} {directory}; wait for it, or name another directory"
        raise RuntimeError(busy) from error
