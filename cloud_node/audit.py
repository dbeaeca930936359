"""The audit log: JSON lines, append-only and hash-chained: who got how much of what, never text.

A slice, a relayed text or what a search found has a line before its first byte leaves and one when its call has ended.
Other calls have one, when they have ended; many of a kind in one second share one. What cannot be written is kept, as
far as there is room, and written first when the file takes lines again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

GENESIS: Final = "0" * 64


SERVED: Final = "SERVED"
SENDING: Final = "SENDING"
MENDED: Final = "MENDED"
LOST: Final = "LOST"
ONE_BY_ONE: Final = 3
MOST_NAMED: Final = 4
_TAIL_BYTES: Final = 1 << 20  # more than the longest line


class AuditInUse(OSError):
    """Another process writes to the log."""


class NotAFile(ValueError):
    """The log would be kept nowhere."""


class BrokenChain(ValueError):
    """A line was changed, removed or put in; the message names the first that does not fit."""


class TornTail(BrokenChain):
    """The file ends in the middle of a line. A node mends that when it starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One call, or several of a kind: as it ended, or before anything of it leaves.

    method: "Describe", "Search", "Share" or "Relay"; "Audit" in a line that the log writes of itself.
    request_id: hex; empty where the call had none.
    documents: ids as asked for, or found by a search; "?" for what cannot be one.
    kind, positions: of the slice, as its header told them.
    segments: of a slice that was sent whole; 0 of any other.
    bytes: in the frames handed to the transport: how much of a slice was sent.
    decision: "SENDING" before the first byte of a slice leaves; then "SERVED", or the reason from the error catalogue.
        "MENDED": the log ended in the middle of a line, of which this many bytes were cut off. "LOST": the log could
        not be written for so long that the lines of this many calls were given up.
    seconds: from arrival to the end.
    calls: how many the line tells of.
    """

    method: str
    tenant: str
    request_id: str = ""
    documents: tuple[str, ...] = ()
    kind: str = ""
    positions: int = 0
    segments: int = 0
    bytes: int = 0
    decision: str = SERVED
    seconds: float = 0.0
    calls: int = 1


class AuditLog:
    """Appends records to a file. One writer a file: a second one is refused."""

    def __init__(self, path: str | Path) -> None:
        """Open the file (mode 0600 when made here) and take up its chain; a torn last line is mended.

        Raises:
            AuditInUse: another process writes to it. NotAFile: it is a device, a pipe or the like.
            BrokenChain: its last whole line is not a record.
            OSError: it cannot be opened or written.
        """
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # O_NONBLOCK: opening a pipe would wait for ever.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._file = os.open(self.path, flags, 0o600)
        self._kept: list[AuditRecord] = []
        self._lost = 0
        self._open = True
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise NotAFile(f"{self.path}: an audit log is a regular file")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._size = os.fstat(self._file).st_size
            self._last, torn, whole = _end_of(self.path)
            if torn and whole:
                self._size += os.write(self._file, b"\n")
            elif torn:
                self._size -= torn
                os.ftruncate(self._file, self._size)
                self.append(AuditRecord(method="Audit", tenant="", bytes=torn, decision=MENDED))
        except BlockingIOError:
            os.close(self._file)
            raise AuditInUse(f"{self.path}: another process writes to this audit log") from None
        except BaseException:
            os.close(self._file)
            raise

    def append(self, record: AuditRecord) -> None:
        """Write one line, after those that were kept, and hand it to the operating system.

        Raises:
            OSError: it could not be written whole. The file is as it was.
        """
        self._write_kept()
        self._write(record)

    def keep(self, record: AuditRecord) -> None:
        """As `append`, but what cannot be written now is kept for later: for calls of which something left."""
        try:
            self.append(record)
        except OSError:
            self._kept.append(record)

    def offer(self, record: AuditRecord) -> None:
        """As `append`, but what cannot be written now is only counted: for calls of which nothing left."""
        try:
            self.append(record)
        except OSError:
            self._lost += record.calls

    def writable(self) -> bool:
        """Whether everything is written, to the file that is still at the path; tries again what is not."""
        with contextlib.suppress(OSError):
            self._write_kept()
        return not self._kept and not self._lost and self._in_place()

    def close(self) -> None:
        """Make the lines durable and give the file back."""
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):
                os.fsync(self._file)
            os.close(self._file)

    def _in_place(self) -> bool:
        """Whether the file at the path is the one that is written to, and as long: else its end would be missing."""
        try:
            there = self.path.stat()
        except OSError:
            return False
        mine = os.fstat(self._file)
        return (there.st_dev, there.st_ino, there.st_size) == (mine.st_dev, mine.st_ino, self._size)

    def _write_kept(self) -> None:
        while self._kept:
            self._write(self._kept[0])
            del self._kept[0]
        if self._lost:
            self._write(AuditRecord(method="Audit", tenant="", decision=LOST, calls=self._lost))
            self._lost = 0

    def _write(self, record: AuditRecord) -> None:
        line = {"time": round(time.time(), 3), **asdict(record), "previous": self._last}
        line["seconds"] = round(record.seconds, 4)
        line["hash"] = _hash(line)
        text = _canonical(line) + b"\n"
        if os.fstat(self._file).st_size > self._size:
            # Half a line that could not be taken back when it was written.
            os.ftruncate(self._file, self._size)
        try:
            if os.write(self._file, text) != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)  # no half line
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self._last, self._size = line["hash"], self._size + len(text)


class SummedRecords:
    """Records of calls of which nothing left, so that many of them do not fill the disk.

    Of each method, tenant and decision the first `ONE_BY_ONE` of a second have a line each, which names the first
    `MOST_NAMED` documents; the others have one together.
    """

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._seconds: dict[tuple[str, str, str], tuple[float, int]] = {}  # when it began, calls so far

    def tell(self, record: AuditRecord) -> None:
        """Write a record, or count it."""
        self.flush()
        key = (record.method, record.tenant, record.decision)
        began, calls = self._seconds.get(key, (time.monotonic(), 0))
        self._seconds[key] = began, calls + 1
        if calls < ONE_BY_ONE:
            self._audit.offer(replace(record, documents=record.documents[:MOST_NAMED]))

    def flush(self) -> None:
        """Write what was counted in seconds that are over."""
        now = time.monotonic()
        over = [(key, calls) for key, (began, calls) in self._seconds.items() if now - began >= 1.0]
        for (method, tenant, decision), calls in over:
            del self._seconds[method, tenant, decision]
            if calls > ONE_BY_ONE:
                more = calls - ONE_BY_ONE
                self._audit.offer(AuditRecord(method=method, tenant=tenant, decision=decision, calls=more))


def verify(path: str | Path) -> int:
    """Check the whole chain and return the number of records.

    Raises:
        BrokenChain: naming the first line that does not follow from the one before it.
        TornTail: all lines follow, and half a line comes after them.
    """
    last, number = GENESIS, 0
    with Path(path).open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n") and not _follows(raw, last):
                raise TornTail(f"{path}: {len(raw)} bytes of a line cut short after {number - 1} whole ones")
            line = _parse(raw, number)
            claimed = line.pop("hash", None)
            if line.get("previous") != last or claimed != _hash(line):
                raise BrokenChain(f"line {number} does not follow from the line before it")
            last = claimed
    return number


def _end_of(path: Path) -> tuple[str, int, bool]:
    """The hash of the last line; how many bytes stand after its end; whether they are a line that lacks only its end.

    Raises:
        BrokenChain: the last line is no record.
    """
    size = path.stat().st_size
    if size == 0:
        return GENESIS, 0, False
    with path.open("rb") as file:
        file.seek(max(0, size - _TAIL_BYTES))
        *lines, torn = file.read().split(b"\n")
    try:
        if not lines and size > _TAIL_BYTES:
            raise BrokenChain("a line without end")
        last = str(_parse(lines[-1], "last")["hash"]) if lines else GENESIS
    except (BrokenChain, KeyError):
        raise BrokenChain(
            f"{path}: the last line is no record: move the file away, and a new log is begun"
        ) from None
    whole = _follows(torn, last)
    return str(json.loads(torn)["hash"]) if whole else last, len(torn), whole


def _follows(raw: bytes, last: str) -> bool:
    """Whether this is a whole record that follows from the line with this hash."""
    try:
        line = _parse(raw, "last")
    except BrokenChain:
        return False
    return line.get("previous") == last and line.pop("hash", None) == _hash(line)


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
