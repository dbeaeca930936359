"""Files of prefixes on disk: where one lies, which go when there is no room, and which go with their document.

    ROOT/<model and numbers>/<owner and document>/<version of the text>-<prompt>.safetensors

Names are hashes, so a listing tells no id. Knows no tensors: whoever removes a document can have its files removed
where no model is loaded. Several processes may use one folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from fuser.atomic import atomic_write

_SUFFIX: Final = ".safetensors"
_RATE: Final = ".tokens_per_s"
_LEFT_FREE: Final = 1 << 30
"""Bytes of the disk that are left to others: the audit log, without which a cloud answers nothing, may lie there."""
_ABANDONED_S: Final = 600.0
"""What was begun so long ago and has not its name yet is nobody's any more."""


@dataclass(frozen=True, slots=True)
class StoredText:
    """A text that somebody stored: whose it is, by what name, and which version. Part of it has that version too."""

    owner: str
    document: str
    version: str


class PrefixFrom(StrEnum):
    """Where K and V of a prompt's documents came from: kept in memory, on disk, or computed."""

    MEMORY = "memory"
    DISK = "disk"
    MODEL = "model"


class PrefixFiles:
    """The files below one folder, for all models that are read there.

    Args:
        root: made where it is not there, for its owner alone.
        max_bytes: of all files; what was not used longest goes first.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root, self._max_bytes = root, max_bytes

    def path(self, namespace: str, text: StoredText, prompt: str) -> Path:
        """Of a prefix that reads this text alone, by a hash of its tokens."""
        return (
            self.root / namespace / _folder(text.owner, text.document) / f"{text.version}-{prompt}{_SUFFIX}"
        )

    def prepare(self, path: Path) -> None:
        """Make the folders of a path, for their owner alone. Raises OSError."""
        for folder in (self.root, path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)  # of others' making, it could be open

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(size for _, _, size in self._files())

    @property
    def room(self) -> int:
        """Bytes that can be written before anything has to go."""
        return max(0, min(self._max_bytes - self.bytes, self._free()))

    @property
    def tokens_per_s(self) -> float | None:
        """How fast a document was read here last; None where none was."""
        try:
            rate = float((self.root / _RATE).read_text())
        except (OSError, ValueError):
            return None
        return rate if 0 < rate < float("inf") else None

    @tokens_per_s.setter
    def tokens_per_s(self, rate: float) -> None:
        with atomic_write(self.root / _RATE) as partial:
            partial.write_text(f"{rate:.4g}\n")

    def make_room(self, size: int) -> bool:
        """Remove what was not used longest until so many bytes fit; False, and nothing is removed, where they never do.

        Raises:
            OSError: the folder cannot be read.
        """
        if size > self._max_bytes:
            return False
        files = sorted(self._files())
        over = sum(size for _, _, size in files) + size - self._max_bytes
        missing = max(over, size - self._free())
        if missing > sum(size for _, _, size in files):
            return False
        for _, path, freed in files:
            if missing <= 0:
                break
            path.unlink(missing_ok=True)
            missing -= freed
        return True

    def forget(self, owner: str, document: str) -> None:
        """Remove all that was kept of a document, in every version and for every model.

        Raises:
            OSError: it cannot be removed.
        """
        for namespace in _folders(self.root):
            with suppress(FileNotFoundError):
                _remove(namespace / _folder(owner, document))

    def forget_all_but(self, there: Collection[StoredText]) -> int:
        """Remove what was kept of texts that are not among these, and what was never finished; how many files.

        Raises:
            OSError: it cannot be removed.
        """
        kept = {(_folder(text.owner, text.document), text.version) for text in there}
        removed = 0
        for _, path, _ in list(self._files()):
            whole = path.suffix == _SUFFIX and not path.name.startswith(".")
            if whole and (path.parent.name, path.name.partition("-")[0]) in kept:
                continue
            with suppress(FileNotFoundError):
                if whole or time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()
                    removed += 1
        return removed

    def _files(self) -> Iterator[tuple[float, Path, int]]:
        """Every file: when it was used last, where it is, and its bytes."""
        for namespace in _folders(self.root):
            for folder in _folders(namespace):
                with suppress(FileNotFoundError), os.scandir(folder) as entries:
                    for entry in entries:
                        with suppress(FileNotFoundError):
                            stat = entry.stat(follow_symlinks=False)
                            yield stat.st_mtime, Path(entry.path), stat.st_size

    def _free(self) -> int:
        folder = next(path for path in (self.root, *self.root.parents) if path.exists())
        return shutil.disk_usage(folder).free - _LEFT_FREE


def _folder(owner: str, document: str) -> str:
    """No owner has a NUL, so no two pairs are one."""
    return hashlib.sha256(f"{owner}\0{document}".encode()).hexdigest()[:32]


def _folders(path: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError), os.scandir(path) as entries:
        yield from [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]


def _remove(folder: Path) -> None:
    """A folder that others may be writing to: again, when something came meanwhile."""
    if folder.is_symlink():
        folder.unlink()  # and not what is in another's folder
    while folder.exists():
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
