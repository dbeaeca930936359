"""One document as it is written, with what it states; tables and labels as this document writes them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random

from fuser.lab.data.notes.kinds import Field, Kind, NoteLine, allowed, option
from fuser.lab.data.notes.notation import Choice, Slot, Template, slots
from fuser.lab.data.notes.values import HANDLE, Draw, Unfit, handle

TABLES = ("markdown", "aligned", "tabs", "semicolons", "bars")
HELDOUT_TABLE = "bars"
LABELS = (
    "{}: {}",
    "{}: {}",
    "{} = {}",
    "**{}:** {}",
    "- {}: {}",
    "{:<22} {}",
    "{}\t{}",
    "{} – {}",
    "{:.<26} {}",
)
HELDOUT_LABEL = "{} – {}"
CELL, LABEL = "¦", ":: "


def page(lines: list[str], random: Random, heldout: bool) -> str:
    """The document. Its columns stand in any order but for the first; half of what is held out has held-out forms."""
    table = _form(TABLES, HELDOUT_TABLE, random, heldout)
    label = _form(LABELS, HELDOUT_LABEL, random, heldout)
    written: list[str] = []
    at = 0
    while at < len(lines):
        end = at
        while end < len(lines) and CELL in lines[end]:
            end += 1
        if end > at:
            written += _table(lines[at:end], table, random)
            at = end
        else:
            name, mark, value = lines[at].partition(LABEL)
            written.append(label.format(name, value).rstrip() if mark else lines[at].rstrip())
            at += 1
    return re.sub("\n{3,}", "\n\n", "\n".join(written)).strip("\n")


def _form(forms: tuple[str, ...], held: str, random: Random, heldout: bool) -> str:
    if heldout and random.random() < 0.5:
        return held
    return random.choice([form for form in forms if form != held])


def _table(lines: list[str], form: str, random: Random) -> list[str]:
    rows = [[cell.strip() for cell in line.split(CELL)] for line in lines]
    order = list(range(1, len(rows[0])))
    random.shuffle(order)
    rows = [[row[0], *(row[column] for column in order)] for row in rows]
    if form == "tabs":
        return ["\t".join(row) for row in rows]
    if form == "semicolons":
        return [";".join(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if form == "markdown" and random.random() < 0.5:
        widths = [3] * len(widths)
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    if form == "aligned":
        return ["  ".join(row).rstrip() for row in padded]
    if form == "bars":
        return [" | ".join(row).rstrip() for row in padded]
    found = [f"| {' | '.join(row)} |" for row in padded]
    return [found[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *found[1:]]


DOCUMENT = -1
"""The number of the row that the fields of the whole document count for."""
_OPTIONAL = 0.6  # how often a line that may be missing is there
_LONG, _LONGER = 0.15, 3  # how often there may be more rows, and how many times as many


class Writer:
    """One document as it is written, with what it states: values by row, and how often each is there.

    layout: how it is written. document: the text. rows: how many repeated rows it has, numbered from 0.

    Raises:
        Unfit: this draw gives no document.
    """

    def __init__(self, kind: Kind, draw: Draw) -> None:
        draw.begin()
        self.kind, self.draw, self._random = kind, draw, draw.random
        self._values: dict[int, dict[str, str]] = {DOCUMENT: {}}
        self._stated: Counter[tuple[int, str]] = Counter()
        self._taken: dict[str, str] = {}
        self._kept = True
        self.layout = draw.random.choice(kind.layouts)
        self._stretch = _LONGER if draw.random.random() < _LONG else 1
        for field in kind.fields.values():
            if field.name in self.layout.slots and not field.of_row:
                self._value(field, DOCUMENT)
        lines = [
            line for block in self.layout.blocks for line in self._lines(block, draw.random.random() ** 2)
        ]
        self.document = page(lines, draw.random, draw.heldout)

    def _lines(self, block: tuple[NoteLine, ...], scale: float) -> Iterator[str]:
        """The lines of a block. scale: from fewest (0) to most (1) rows."""
        if not block[0].repeated:
            order = self._random.sample(block, len(block)) if block[0].loose else block
            yield from self._stating(order, DOCUMENT)
            return
        least, most = block[0].rows[0], block[0].rows[1] * self._stretch
        for _ in range(least + round((most - least) * scale)):
            row = len(self._values) - 1
            self._values[row] = {}
            yield from self._stating(block, row)

    def _stating(self, lines: Sequence[NoteLine], row: int) -> Iterator[str]:
        for line in lines:
            if not line.follows:
                self._kept = not line.optional or self._random.random() < _OPTIONAL
            if self._kept:
                yield self._write(line.text, row)

    def _write(self, template: Template, row: int) -> str:
        found = []
        for part in template:
            if isinstance(part, str):
                found.append(part)
            elif isinstance(part, Choice):
                found.append(self._write(option(part, self.phrasing(part.text)), row))
            else:
                found.append(self._slot(part, row))
        return "".join(found)

    def _slot(self, slot: Slot, row: int) -> str:
        name = slot.name.removesuffix(HANDLE)
        if name not in self.kind.fields:
            return self.draw.fill((slot,), {})
        field = self.kind.fields[name]
        if slot.name == name:
            self._stated[self._owner(field, row), name] += 1
        text = self._value(field, row)
        return text if slot.name == name else handle(text)

    @property
    def rows(self) -> range:
        return range(len(self._values) - 1)

    def stated(self, field: Field, row: int) -> int:
        """How often the document states a field, of that row if it is one of a row."""
        return self._stated[self._owner(field, row), field.name]

    def said(self, name: str, row: int) -> str:
        """The value of a field which the document states; all occurrences of that text are this fact.

        Raises:
            Unfit: it does not state it, or the text stands for something else too.
        """
        field = self.kind.fields[name]
        text, times = self._values[self._owner(field, row)].get(name, ""), self.stated(field, row)
        if not times or self.document.count(text) != times:
            raise Unfit
        return text

    def unsaid(self, name: str) -> str:
        """A value of a row's field that the document does not have.

        Raises:
            Unfit: there was none.
        """
        field = self.kind.fields[name]
        text = self.draw.fill(field.value, {}) if field.closed else self.draw.fitting(field.value, {}, {})
        if text in self.document:
            raise Unfit
        return text

    def _owner(self, field: Field, row: int) -> int:
        return row if field.of_row else DOCUMENT

    def _value(self, field: Field, row: int) -> str:
        """The field's value in this document or row; drawn when it is first asked for."""
        own = self._values[self._owner(field, row)]
        if field.name not in own:
            own[field.name] = self._new(field, row)
            self._taken[own[field.name]] = field.name
        return own[field.name]

    def _new(self, field: Field, row: int) -> str:
        named = [name.removesuffix(HANDLE) for name in slots(field.value) if name.endswith(HANDLE)]
        scope = {name: self._value(self.kind.fields[name], row) for name in named}
        if field.closed:
            return self.draw.fill(field.value, scope)
        return self.draw.fitting(field.value, scope, self._taken)

    def phrasing(self, options: tuple[str, ...]) -> str:
        """One of some options that this split may use, of a held-out split half of the time a held-out one.

        Raises:
            Unfit: there is none.
        """
        known = allowed(options)
        held = [option for option in options if option not in known]
        if self.draw.heldout and held and (not known or self._random.random() < 0.5):
            return self._random.choice(held)
        if not known:
            raise Unfit
        return self._random.choice(known)
