"""The audit log as a chain of lines over one or several files: read, checked against its signatures and anchors.

A line holds its number, the hash of the line before it, its own hash, and a signature of that by the node's key. The
signature of the last line so vouches for all. An anchor is the number and hash of a line, kept where the node cannot
write: it shows what was cut off at the end since, and what was made anew with the key.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

GENESIS: Final = "0" * 64
_TAIL_BYTES: Final = 1 << 20  # more than the longest line
_PUT_AWAY: Final = re.compile(r"\.[0-9]{12}")


class BrokenChain(ValueError):
    """A line was changed, removed or put in, or signed by nobody; the message names the first that does not fit."""


class TornTail(BrokenChain):
    """The log ends in the middle of a line. A node mends that when it starts."""


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


@dataclass(frozen=True, slots=True)
class Verified:
    """A whole log. first: the number of its first line. last: its last line. signed: whether that was checked."""

    records: int
    first: int
    last: Anchor
    signed: bool


def key_beside(log: str | Path) -> Path:
    """Where the key of a log is, if nothing else is said."""
    return Path(log).with_suffix(".key")


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The key in a file.

    Raises:
        BadKey, OSError.
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
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public key of a key, in hex."""
    return key.public_key().public_bytes_raw().hex()


def files_of(log: str | Path) -> list[Path]:
    """The files of a log, oldest first: those put away by rotation, then the one that is written to, if it is there."""
    log = Path(log)
    put_away = [
        one for one in log.parent.glob(f"{log.name}.*") if _PUT_AWAY.fullmatch(one.name[len(log.name) :])
    ]
    return sorted(put_away) + ([log] if log.exists() else [])


def name_put_away(log: Path, last: int) -> Path:
    """What a file of a log is called once it is put away; `last`: the number of its last line."""
    return log.with_name(f"{log.name}.{last:012d}")


def lines(log: str | Path, first: int | None = 1) -> Iterator[dict[str, Any]]:
    """The lines of all files of a log, each checked to follow from the one before it.

    Args:
        first: the number of the first one that is still there, where older files were moved elsewhere; None: whichever.

    Raises:
        BrokenChain: naming the first line that does not follow. TornTail: half a line comes after the last one.
    """
    last: str | None = GENESIS if first == 1 else None
    expected, files = first or 0, files_of(log)
    if not files:
        raise FileNotFoundError(f"{log}: there is no such log")
    for path in files:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                where = f"{path}: line {number}"
                if not raw.endswith(b"\n") and not follows(raw, last or ""):
                    if path == files[-1]:
                        raise TornTail(
                            f"{path}: {len(raw)} bytes of a line cut short after {number - 1} whole ones"
                        )
                    raise BrokenChain(f"{where} is cut short")
                line = _parse(raw, where)
                begun = expected == first and path == files[0] and number == 1
                expected = expected or int(line.get("sequence", 1))
                if begun and line.get("sequence") != expected:
                    raise BrokenChain(
                        f"{path} begins with line {line.get('sequence')} of the log, not {expected}: "
                        "older files are missing"
                    )
                fits = last is None or line.get("previous") == last
                if not fits or line.get("sequence") != expected or line.get("hash") != hash_of(line):
                    raise BrokenChain(f"{where} does not follow from the line before it")
                last, expected = str(line["hash"]), expected + 1
                yield line


def verify(
    log: str | Path, public_key: str | None = None, anchors: Sequence[Anchor] = (), first: int | None = 1
) -> Verified:
    """Check all files of a log.

    Args:
        public_key: hex, of whoever is to have signed it; None takes that of the anchors, if there are any.
        anchors: lines that were in this log.
        first: as in `lines`.

    Raises:
        BrokenChain, TornTail: as `lines`; the last line is not signed by that key; or a line that an anchor names is
            missing or another one.
    """
    keys = {anchor.public_key for anchor in anchors if anchor.public_key} | (
        {public_key} if public_key else set()
    )
    if len(keys) > 1:
        raise BrokenChain(f"{log}: the anchors and the key name {len(keys)} different keys")
    wanted, records, line = {anchor.sequence: anchor for anchor in anchors}, 0, dict[str, Any]()
    for line in lines(log, first):
        records += 1
        anchor = wanted.pop(int(line["sequence"]), None)
        if anchor is not None and anchor.hash != line["hash"]:
            raise BrokenChain(
                f"{log}: line {anchor.sequence} of the log is not the one that its anchor names"
            )
    last = anchor_of(line) if line else Anchor()
    begins = last.sequence - records + 1
    for sequence in sorted(wanted):
        if sequence >= begins and sequence:
            raise BrokenChain(f"{log}: cut off after line {last.sequence}: an anchor names line {sequence}")
    if keys and line:
        check_signature(line, next(iter(keys)), str(log))
    return Verified(records, begins, last, bool(keys and line))


def anchor_of(line: dict[str, Any], public_key: str = "") -> Anchor:
    """The anchor that a line is."""
    return Anchor(int(line["sequence"]), str(line["hash"]), float(line["time"]), public_key)


def read_anchors(text: str) -> list[Anchor]:
    """Anchors as `kvwire audit-log anchor` prints them, one a line.

    Raises:
        ValueError: one is none, or there is none.
    """
    found = []
    for line in filter(str.strip, text.splitlines()):
        try:
            found.append(Anchor(**json.loads(line)))
        except (ValueError, TypeError):
            raise ValueError("an anchor is a line as `kvwire audit-log anchor` prints it") from None
    if not found:
        raise ValueError("there is no anchor")
    return found


def anchor_text(anchor: Anchor) -> str:
    """One line of JSON."""
    return json.dumps(asdict(anchor))


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
        last = _parse(whole[-1], "last") if whole else end_of(older)[0]
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
        line = _parse(raw, "last")
    except BrokenChain:
        return False
    return line.get("previous") == last and line.get("hash") == hash_of(line)


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        line = json.loads(raw)
    except ValueError:
        raise BrokenChain(f"{where} is not JSON") from None
    if not isinstance(line, dict):
        raise BrokenChain(f"{where} is not a record")
    return line
