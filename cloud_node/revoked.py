"""Which certificates are no longer good: a file of serial numbers and SPIFFE ids, read again when it changes."""

from __future__ import annotations

import logging
import re
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
        self._path = None if path is None else Path(path)
        self._seen: object = None
        self._serials: frozenset[int] = frozenset()
        self._identities: frozenset[Identity] = frozenset()
        if self._path is not None:
            self._seen = version_of_file(self._path)
            self._read(self._path)

    def check(self, identity: Identity, serial: int) -> None:
        """Whether a certificate is still good.

        Raises:
            AccessDenied: it is revoked.
        """
        if self._path is not None:
            self._look_again(self._path)
        if serial in self._serials or identity in self._identities:
            raise AccessDenied(f"the certificate {serial:X} of {identity.uri} is revoked")

    def _look_again(self, path: Path) -> None:
        seen: object = None
        try:
            seen = version_of_file(path)
            if seen != self._seen:
                self._read(path)
        except (OSError, ValueError) as error:
            if seen != self._seen:
                logger.error("no certificate is good again that was revoked: %s", error)
        self._seen = seen

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


def version_of_file(path: Path) -> tuple[int, ...]:
    """Another one whenever the file at a path is another, or was written to. Raises OSError."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
