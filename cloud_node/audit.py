"""The audit log: JSON lines, append-only, chained and signed (`cloud_node.audit_chain`): who got how much of what.

It holds no text.

A slice, a relayed text or what a search found has a line before its first byte leaves and one when its call has ended.
Other calls have one, when they have ended; many of a kind in one second share one. What cannot be written is kept, as
far as there is room, and written first when the file takes lines again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from cloud_node.audit_chain import (
    Anchor,
    anchor_of,
    canonical,
    check_signature,
    end_of,
    files_of,
    hash_of,
    key_beside,
    make_key,
    name_put_away,
    public_hex,
    signing_key,
)

SERVED: Final = "SERVED"
SENDING: Final = "SENDING"
MENDED: Final = "MENDED"
LOST: Final = "LOST"
ONE_BY_ONE: Final = 3
MOST_NAMED: Final = 4
_DAY_S: Final = 86_400


class AuditInUse(OSError):
    """Another process writes to the log."""


class NotAFile(ValueError):
    """The log would be kept nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One call, or several of a kind: as it ended, or before anything of it leaves.

    method: "Describe", "Search", "Share" or "Relay"; "Audit" in a line that the log writes of itself.
    identity: of the edge, as its certificate has it; empty where that was refused.
    request_id: hex; empty where the call had none.
    documents: ids as asked for, or found by a search; "?" for what cannot be one.
    versions: of their texts, as they were read; of each of `documents`, in a line about what leaves.
    kind, positions: of the slice, as its header told them; tokens of a relayed text.
    quoted: of each position that was chosen in a document: the document's place in `documents`, and characters
        [begins, ends) of its text.
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
    identity: str = ""
    request_id: str = ""
    documents: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    kind: str = ""
    positions: int = 0
    quoted: tuple[tuple[int, int, int], ...] = ()
    segments: int = 0
    bytes: int = 0
    decision: str = SERVED
    seconds: float = 0.0
    calls: int = 1


class AuditLog:
    """Appends records to a file. One writer a log: a second one is refused.

    Args:
        path: the file. key: that of its signatures, made (mode 0600) where it is absent and the log is new; None is one
            beside the log. rotate_bytes: a file that would become longer is put away, as `PATH.NUMBER` with the number
            of its last line; 0 is no bound. rotate_daily: as is yesterday's (UTC). The chain goes on in the new file.

    Raises:
        AuditInUse: another process writes to it. NotAFile: it is a device, a pipe or the like.
        BrokenChain: its last whole line is not a record, or not signed by the key.
        BadKey: the file with the key has none. FileNotFoundError: the log has lines, and there is no key.
        OSError: it cannot be opened or written.
    """

    def __init__(
        self,
        path: str | Path,
        key: str | Path | None = None,
        rotate_bytes: int = 0,
        rotate_daily: bool = False,
    ) -> None:
        """Open the file (mode 0600 when made here) and take up its chain; a torn last line is mended."""
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rotate_bytes, self._rotate_daily = rotate_bytes, rotate_daily
        self._kept: list[AuditRecord] = []
        self._lost = 0
        self._open = True
        with contextlib.ExitStack() as opened:
            self._file = _opened(self.path, os.O_CREAT)
            opened.callback(os.close, self._file)
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise NotAFile(f"{self.path}: an audit log is a regular file")
            key = Path(key) if key is not None else key_beside(self.path)
            if not key.exists() and not end_of(files_of(self.path))[0]:
                with contextlib.suppress(FileExistsError):  # another made it meanwhile
                    make_key(key)
            self._key = signing_key(key)
            # The key's file stays while the log's own is put away.
            self._lock = os.open(key, os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, self._lock)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AuditInUse(f"{self.path}: another process writes to this audit log") from None
            line, torn, whole = end_of(files_of(self.path))
            if line:
                check_signature(line, public_hex(self._key), str(self.path))
            self._last, self._size = anchor_of(line) if line else Anchor(), os.fstat(self._file).st_size
            if torn and whole:
                self._size += os.write(self._file, b"\n")
            elif torn:
                self._size -= torn
                os.ftruncate(self._file, self._size)
                self.append(AuditRecord(method="Audit", tenant="", bytes=torn, decision=MENDED))
            opened.pop_all()

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
            os.close(self._lock)

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
        now = time.time()
        line = {"sequence": self._last.sequence + 1, "time": round(now, 3), **asdict(record)}
        line |= {"seconds": round(record.seconds, 4), "previous": self._last.hash}
        line["hash"] = hash_of(line)
        line["signature"] = self._key.sign(bytes.fromhex(line["hash"])).hex()
        text = canonical(line) + b"\n"
        try:
            if os.fstat(self._file).st_size > self._size:
                # Half a line that could not be taken back when it was written.
                os.ftruncate(self._file, self._size)
            if self._is_full(len(text), now):
                self._put_away()
            if os.write(self._file, text) != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)  # no half line
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self._last, self._size = anchor_of(line), self._size + len(text)

    def _is_full(self, more: int, now: float) -> bool:
        if not self._size:
            return False
        too_long = 0 < self._rotate_bytes < self._size + more
        return too_long or (self._rotate_daily and now // _DAY_S > self._last.time // _DAY_S)

    def _put_away(self) -> None:
        """Give the file another name and begin an empty one in its place."""
        if self._in_place():
            os.fsync(self._file)
            self.path.rename(name_put_away(self.path, self._last.sequence))
        # Where the last attempt came no further, there is nothing at the path; what else is there is not ours.
        file = _opened(self.path, os.O_CREAT | os.O_EXCL)
        os.close(self._file)
        self._file, self._size = file, 0


def _opened(path: Path, flags: int) -> int:
    # O_NONBLOCK: opening a pipe would wait for ever.
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | flags, 0o600)


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
