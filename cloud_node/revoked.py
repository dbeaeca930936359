"""Which certificates are no longer good: a file of serial numbers and SPIFFE ids, read again when it changes."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kvwire.errors import AccessDenied
from kvwire.identity import Identity

logger = logging.getLogger(__name__)

_SERIAL: Final = re.compile("[0-9A-F]{1,40}")


class Revoked:
    """What a file says, line by line: a serial number in hex, as `openssl x509 -serial` has it, or a SPIFFE id.

    Blank lines count for nothing, nor what stands behind a "#". A file that cannot be read, and a line that is neither,
    take nothing back: what was revoked stays so, and the log says why.

    Args:
        path: None revokes nothing.

    Raises:
        OSError: the file cannot be read. ValueError: a line is neither.
    """

    def __init__(self, path: str | None) -> None:
        self._serials: frozenset[int] = frozenset()
        self._identities: frozenset[Identity] = frozenset()
        kept = "no certificate is good again that was revoked"
        self._file = None if path is None else Reread(Path(path), self._read, kept)

    def check(self, identity: Identity, serial: int) -> None:
        """Whether a certificate is still good.

        Raises:
            AccessDenied: it is revoked.
        """
        if self._file is not None:
            self._file.look_again()
        if serial in self._serials or identity in self._identities:
            raise AccessDenied(f"the certificate {serial:X} of {identity.uri} is revoked")

    def _read(self, path: Path) -> None:
        serials, identities, bad = set[int](), set[Identity](), 0
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            entry = line.partition("#")[0].strip()
            serial = entry.upper().replace(":", "").removeprefix("SERIAL=")
            try:
                if entry.startswith("spiffe:"):
                    identities.add(Identity.parse(entry))
                elif _SERIAL.fullmatch(serial):
                    serials.add(int(serial, 16))
                elif entry:
                    bad = bad or number
            except AccessDenied:
                bad = bad or number
        if bad:
            self._serials |= serials
            self._identities |= identities
            raise ValueError(f"{path}: line {bad} is neither a serial number in hex nor a SPIFFE id")
        self._serials, self._identities = frozenset(serials), frozenset(identities)


class Reread:
    """A file that is read when this is made, and again whenever it has changed.

    Args:
        read: takes in what is there now. kept: what the log says stays, where that fails.

    Raises:
        OSError, ValueError: as `read`, the first time.
    """

    def __init__(self, path: Path, read: Callable[[Path], None], kept: str) -> None:
        self._path, self._read, self._kept = path, read, kept
        self._seen: object = _version(path)
        read(path)

    def look_again(self) -> None:
        """Read it if it has changed; what cannot be read changes nothing, and the log says so once."""
        seen: object = None
        try:
            seen = _version(self._path)
            if seen != self._seen:
                self._read(self._path)
        except (OSError, ValueError) as error:
            if seen != self._seen:
                logger.error("%s: %s", self._kept, error)
        self._seen = seen


def _version(path: Path) -> tuple[int, ...]:
    """Another one whenever the file at a path is another, or was written to. Raises OSError."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
