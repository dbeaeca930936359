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
import glob
import hashlib
import json
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

GENESIS: Final = "0" * 64
_TAIL_BYTES: Final = 1 << 20  # more than the longest line
_IS_THERE: Final = {"sequence": int, "time": float, "previous": str, "hash": str}

SERVED: Final = "SERVED"
SENDING: Final = "SENDING"
MENDED: Final = "MENDED"
LOST: Final = "LOST"
_DAY_S: Final = 86_400


class AuditInUse(OSError):
    """Another process writes to the log."""


class NotAFile(ValueError):
    """The log would be kept nowhere."""


class BrokenChain(ValueError):
    """A line was changed, removed or put in, or signed by nobody; the message names the first that does not fit."""


class BadKey(ValueError):
    """A file holds no Ed25519 key in PEM."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """One line of a log, to be kept elsewhere.

    sequence: its number, from 1; 0 before the first one. hash: its hash. time: when it was written, seconds since 1970.
    public_key: of the key that signs the log, hex; "" where it is not known.
    """

    sequence: int = 0
    hash: str = GENESIS
    time: float = 0.0
    public_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One call, or several of a kind: as it ended, or before anything of it leaves.

    method: "Describe", "Search", "Share" or "Relay"; "Audit" in a line that the log writes of itself.
    identity: of the edge, as its certificate has it; empty where that was refused.
    user: behind the edge, as a token that held names it; empty where there was none.
    request_id: hex; empty where the call had none.
    documents: ids as asked for, or found by a search; "?" for what cannot be one.
    versions: which text each of `documents` had, as an answer tells it too; in a line about what leaves.
    text_hashes: of these texts (`cloud_node.documents.hash_of`).
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
    user: str = ""
    request_id: str = ""
    documents: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    text_hashes: tuple[str, ...] = ()
    kind: str = ""
    positions: int = 0
    quoted: tuple[tuple[int, int, int], ...] = ()
    segments: int = 0
    bytes: int = 0
    decision: str = SERVED
    seconds: float = 0.0
    calls: int = 1


NAMES: Final = sorted(
    (*AuditRecord.__dataclass_fields__, "sequence", "time", "previous", "hash", "signature")
)
"""What every line has."""


class AuditLog:
    """Appends records to a file. One writer a log: a second one is refused.

    Args:
        path: the file. key: that of its signatures, made (mode 0600) where it is absent and the log is new; None is one
            beside the log. rotate_bytes: a file that would become longer is put away, as `PATH.NUMBER` with the number
            of its last line; 0 is no bound. rotate_daily: as is yesterday's (UTC). The chain goes on in the new file.

    Raises:
        AuditInUse: another process writes to it, or signs with its key. NotAFile: it is a device, a pipe or the like.
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
            # Another writer may have a copy of the key, or another log and this key.
            if not _locked(self._file):
                raise AuditInUse(f"{self.path}: another process writes to this audit log")
            if not _locked(self._lock):
                raise AuditInUse(
                    f"{key}: another process signs another audit log with this key: give each node a key of its own "
                    "(audit_key in cloud.toml; without it, one beside the log)"
                )
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
            self.path.rename(f"{self.path}.{self._last.sequence:012d}")
        # Where the last attempt came no further, there is nothing at the path; what else is there is not ours.
        file = _opened(self.path, os.O_CREAT | os.O_EXCL)
        if not _locked(file):
            os.close(file)
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        os.close(self._file)
        self._file, self._size = file, 0


def _opened(path: Path, flags: int) -> int:
    # O_NONBLOCK: opening a pipe would wait for ever.
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | flags, 0o600)


def _locked(file: int) -> bool:
    """Whether nobody else had the lock of a file, so that we have it now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def key_beside(log: str | Path) -> Path:
    """Where the key of a log is, if nothing else is said."""
    return Path(log).with_suffix(".key")


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The key in a file.

    Raises:
        BadKey: it holds none. OSError: it cannot be read.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        raise BadKey(f"{path} holds no Ed25519 key in PEM without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(f"{path} holds a key, but none of Ed25519")
    return key


def make_key(path: Path) -> None:
    """Write a new key, for its owner alone. Raises FileExistsError, OSError."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # a crash leaves no half of a key
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, path)  # which does not replace one that is there
    finally:
        partial.unlink(missing_ok=True)


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public key of a key, in hex."""
    return key.public_key().public_bytes_raw().hex()


def files_of(log: str | Path) -> list[Path]:
    """The files of a log, oldest first: those put away by rotation, then the one that is written to, if it is there."""
    log = Path(log)
    put_away = log.parent.glob(f"{glob.escape(log.name)}.{'[0-9]' * 12}")
    return sorted(put_away) + ([log] if log.exists() else [])


def anchor_of(line: dict[str, Any], public_key: str = "") -> Anchor:
    """The anchor that a line is."""
    return Anchor(int(line["sequence"]), str(line["hash"]), float(line["time"]), public_key)


def check_signature(line: dict[str, Any], public_key: str, where: str) -> None:
    """Raises BrokenChain where a line is not signed by this key (hex)."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(str(line.get("signature"))), bytes.fromhex(str(line["hash"])))
    except (InvalidSignature, ValueError):
        raise BrokenChain(
            f"{where}: line {line.get('sequence')} of the log is not signed by {public_key[:16]}…"
        ) from None


def end_of(files: Sequence[Path]) -> tuple[dict[str, Any], int, bool]:
    """The last whole line ({} of an empty log); how many bytes stand after it; whether they lack only their end.

    Args:
        files: of the log, oldest first.

    Raises:
        BrokenChain: the last line is no record.
    """
    if not files:
        return {}, 0, False
    *older, path = files
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _TAIL_BYTES))
        *whole, torn = file.read().split(b"\n")
    try:
        if not whole and size > _TAIL_BYTES:
            raise BrokenChain("a line without end")
        last = parse(whole[-1], "last") if whole else end_of(older)[0]
        if last:
            anchor_of(last)
    except (BrokenChain, KeyError, ValueError, TypeError):
        raise BrokenChain(
            f"{path}: the last line is no record: move the file away, and a new log is begun"
        ) from None
    if follows(torn, str(last.get("hash", GENESIS))):
        return json.loads(torn), len(torn), True
    return last, len(torn), False


def canonical(line: dict[str, Any]) -> bytes:
    """A line as it stands in the file, and with nothing but its contents as it is hashed."""
    return json.dumps(line, sort_keys=True, separators=(",", ":")).encode()


def hash_of(line: dict[str, Any]) -> str:
    """Of all of a line but its own hash and signature."""
    rest = {key: value for key, value in line.items() if key not in ("hash", "signature")}
    return hashlib.sha256(canonical(rest)).hexdigest()


def follows(raw: bytes, last: str) -> bool:
    """Whether this is a whole record that follows from the line with this hash."""
    try:
        line = parse(raw, "last")
    except BrokenChain:
        return False
    return line.get("previous") == last and line.get("hash") == hash_of(line)


def parse(raw: bytes, where: str) -> dict[str, Any]:
    """A line, which stands there as the log writes it. Raises BrokenChain where it is none."""
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        raise BrokenChain(f"{where} is not JSON") from None
    if not isinstance(line, dict) or any(type(line.get(key)) is not is_a for key, is_a in _IS_THERE.items()):
        raise BrokenChain(f"{where} is not a record")
    if canonical(line) != raw.removesuffix(b"\n"):
        # Of two keys of one name the hash knows the second alone.
        raise BrokenChain(f"{where} is not as the log writes it")
    return line
