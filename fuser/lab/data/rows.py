"""Rows of data from anywhere, read field by field; a bad field is refused by file, line and name."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


class BadRow(ValueError):
    """A row is not what its schema says. The message names where it is and the field."""


@dataclass(frozen=True, slots=True)
class DataRow:
    """One object; `where` says where it stands (`FILE line 7`), `number` counts rows from 1."""

    fields: Mapping[str, Any]
    where: str
    number: int

    def __contains__(self, name: str) -> bool:
        return self.fields.get(name) is not None

    def id(self) -> str:
        value = self.fields.get("id")
        if value is None or value == "":
            return str(self.number)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.bad("id", "text or a whole number", value)
        return str(value)

    def text(self, name: str, default: str | None = None) -> str:
        """A field of text, which is not blank unless a default is given."""
        value = self.fields.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or (default is None and not value.strip()):
            raise self.bad(name, "text", value)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.fields.get(name)
        if not isinstance(value, list) or not value or not all(isinstance(part, str) for part in value):
            raise self.bad(name, "a list of texts", value)
        return tuple(value)

    def index(self, name: str) -> int:
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.bad(name, "a whole number from 0", value)
        return value

    def bad(self, name: str, wanted: str, value: object) -> BadRow:
        if value is None:
            return BadRow(f"{self.where}: field {name!r} is missing; expected {wanted}")
        shown = json.dumps(value, ensure_ascii=False, default=str)
        shown = shown if len(shown) <= 40 else shown[:37] + "..."
        return BadRow(f"{self.where}: field {name!r} must be {wanted}, not {shown}")


def read_rows(path: Path) -> Iterator[DataRow]:
    """Rows of a JSON-lines file, gzip or not whatever its name says; blank lines are skipped.

    Raises:
        BadRow: the file cannot be read, is not UTF-8 or broken gzip, or a line is not a JSON object.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as lines:
            number = 0
            for at, line in enumerate(lines, 1):
                if line.strip():
                    number += 1
                    yield DataRow(_parse(line, f"{path} line {at}"), f"{path} line {at}", number)
    except (OSError, EOFError, zlib.error) as error:
        raise BadRow(f"{path}: cannot be read: {error}") from error


def _parse(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{where}: not a line of JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRow(f"{where}: a JSON object is expected, not {type(value).__name__}")
    if b"\\ud" in line.lower() and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise BadRow(f"{where}: half of a surrogate pair (\\ud800 to \\udfff) is no text")
    return value
