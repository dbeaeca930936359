"""The audit log as a chain of lines over one or several files: read, checked against its signatures and anchors.

A line holds its number, the hash of the line before it, its own hash, and a signature of that by the node's key. The
signature of the last line so vouches for all. An anchor is the number and hash of a line, kept where the node cannot
write: it shows what was cut off at the end since, and what was made anew with the key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cloud_node.audit import (
    GENESIS,
    Anchor,
    BrokenChain,
    anchor_of,
    check_signature,
    files_of,
    follows,
    hash_of,
    parse,
)


class TornTail(BrokenChain):
    """The log ends in the middle of a line. A node mends that when it starts."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A whole log. first: the number of its first line. since: when that was written, seconds since 1970.
    last: its last line. signed: whether that was checked."""

    records: int
    first: int
    since: float
    last: Anchor
    signed: bool


def lines(log: str | Path, first: int | None = 1) -> Iterator[dict[str, Any]]:
    """The lines of all files of a log, each checked to follow from the one before it.

    Args:
        first: the number of the first one that is still there, where older files were moved elsewhere; None: whichever.

    Raises:
        BrokenChain: naming the first line that does not follow. TornTail: half a line comes after the last one.
    """
    last: str | None = GENESIS if first == 1 else None
    expected = first or 0
    begins = True
    for path, file, newest in _opened(log):
        for number, raw in enumerate(file, 1):
            where = f"{path}: line {number}"
            if not raw.endswith(b"\n") and not follows(raw, last or ""):
                if newest:
                    raise TornTail(
                        f"{path}: {len(raw)} bytes of a line cut short after {number - 1} whole ones"
                    )
                raise BrokenChain(f"{where} is cut short")
            line = parse(raw, where)
            expected = expected or line["sequence"]
            if begins and line["sequence"] != expected:
                raise BrokenChain(
                    f"{path} begins with line {line.get('sequence')} of the log, not {expected}: "
                    "older files are missing"
                )
            fits = last is None or line.get("previous") == last
            if not fits or line.get("sequence") != expected or line.get("hash") != hash_of(line):
                raise BrokenChain(f"{where} does not follow from the line before it")
            last, expected, begins = str(line["hash"]), expected + 1, False
            yield line


def _opened(log: str | Path) -> Iterator[tuple[Path, BinaryIO, bool]]:
    """The files of a log, open, oldest first, and whether it is the newest: that is held, or it could be put away.

    Raises:
        FileNotFoundError: there is none.
    """
    while True:
        files = files_of(log)
        if not files:
            raise FileNotFoundError(f"{log}: there is no such log")
        with files[-1].open("rb") as newest:
            if files == files_of(log):
                for path in files[:-1]:
                    with path.open("rb") as file:
                        yield path, file, False
                yield files[-1], newest, True
                return


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
    since = 0.0
    for line in lines(log, first):
        since = since or line["time"]
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
    return Verified(records, begins, since, last, bool(keys and line))


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
