"""The audit log: one JSON line a call, append-only and hash-chained: who got how much of what, never text."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

GENESIS: Final = "0" * 64


class BrokenChain(ValueError):
    """A line was changed, removed or put in; the message names the first that does not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One call, as it ended.

    method: "Describe", "Share" or "Relay".
    request_id: hex; empty where the call had none.
    documents: ids as asked for; "?" for what cannot be one.
    kind, positions: of the slice, as its header told them.
    segments: of a slice that was sent whole; 0 of any other.
    bytes: in the frames handed to the transport: how much of a slice was sent.
    decision: "SERVED", or the reason from the error catalogue.
    seconds: from arrival to the end.
    """

    method: str
    tenant: str
    request_id: str = ""
    documents: tuple[str, ...] = ()
    kind: str = ""
    positions: int = 0
    segments: int = 0
    bytes: int = 0
    decision: str = "SERVED"
    seconds: float = 0.0


class AuditLog:
    """Appends records to a file. One writer a file: a second one is refused."""

    def __init__(self, path: str | Path) -> None:
        """Open the file (mode 0600 when made here) and take up its chain.

        Raises:
            BlockingIOError: another process writes to it.
            BrokenChain: its last line is not a record.
            OSError: it cannot be opened.
        """
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._file = os.fdopen(descriptor, "a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._last = _last_hash(self.path)
        except BaseException:
            self._file.close()
            raise

    def append(self, record: AuditRecord) -> None:
        """Write one line and hand it to the operating system."""
        line = {"time": round(time.time(), 3), **asdict(record), "previous": self._last}
        line["seconds"] = round(record.seconds, 4)
        self._last = line["hash"] = _hash(line)
        self._file.write(_canonical(line) + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Make the lines durable and give the file back."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()


def verify(path: str | Path) -> int:
    """Check the whole chain and return the number of records.

    Raises:
        BrokenChain: naming the first line that does not follow from the one before it.
    """
    last, number = GENESIS, 0
    with Path(path).open("rb") as file:
        for number, raw in enumerate(file, 1):
            line = _parse(raw, number)
            claimed = line.pop("hash", None)
            if line.get("previous") != last or claimed != _hash(line):
                raise BrokenChain(f"line {number} does not follow from the line before it")
            last = claimed
    return number


def _last_hash(path: Path) -> str:
    size = path.stat().st_size
    if size == 0:
        return GENESIS
    with path.open("rb") as file:
        file.seek(max(0, size - (1 << 16)))
        lines = file.read().split(b"\n")
    if lines[-1]:
        raise BrokenChain("the last line is cut short")
    return str(_parse(lines[-2], "last").get("hash"))


def _parse(raw: bytes, number: int | str) -> dict[str, Any]:
    try:
        line = json.loads(raw)
    except ValueError:
        raise BrokenChain(f"line {number} is not JSON") from None
    if not isinstance(line, dict):
        raise BrokenChain(f"line {number} is not a record")
    return line


def _canonical(line: dict[str, Any]) -> bytes:
    return json.dumps(line, sort_keys=True, separators=(",", ":")).encode()


def _hash(line: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(line)).hexdigest()
