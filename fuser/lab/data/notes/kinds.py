"""The kinds of document, a file each: `kinds/` are trained on, `heldout_kinds/` never.

A file has fields (`name := value`), then layouts with `---` before each, then `===` and questions, all in the notation
of `fuser.lab.data.notes.notation`. A first line `share 0.5` makes the kind half as frequent as others.

    *name := value    a field of every row, not of the document
    *2-6 text         a line that is repeated, two to six times; following lines that begin with `* ` belong to it
    ~ text            a line that is not in every document
    + text            a line that is there where the one before is
    & text            following lines that begin so stand in any order
    label:: value     the document's own way to separate the two
    a ¦ b ¦ c         a row of a table, the first of which is its head; the document's own way to write it
    name? a | b       questions that the field answers
    !? a | b          questions that no document of the kind answers

One question of each field, and one of three or more wordings in a layout, are held out of training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fuser.lab.data.notes.notation import Choice, Template, by_hash, choices, parse, slots
from fuser.lab.data.notes.values import CLOSED

_HERE = Path(__file__).parent
_LINE = re.compile(
    r"(?P<repeat>\*(?:(?P<least>\d+)-(?P<most>\d+))?)?(?P<loose>&)?(?P<optional>~)?(?P<follows>\+)? (?P<text>.*)"
)
_MANY = 3


@dataclass(frozen=True, slots=True)
class NoteLine:
    """A line of a layout. `rows` fewest and most rows where it begins a repeated block, and what its marks say."""

    text: Template
    repeated: bool = False
    rows: tuple[int, int] = (1, 1)
    loose: bool = False
    optional: bool = False
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """The lines of one way to write a document, in blocks: of one line, of one row, or in any order."""

    blocks: tuple[tuple[NoteLine, ...], ...]
    slots: frozenset[str]


@dataclass(frozen=True, slots=True)
class Field:
    """What a document may state. `asked` are its questions."""

    name: str
    value: Template
    of_row: bool
    closed: bool
    asked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of document. share: how many of them there are to one of another kind. unstated: what none answers."""

    name: str
    heldout: bool
    share: float
    fields: dict[str, Field]
    layouts: tuple[Layout, ...]
    unstated: tuple[str, ...]


def _line(text: str) -> NoteLine:
    found = _LINE.fullmatch(text)
    if found is None or text[0] not in "*&~+":
        return NoteLine(parse(text))
    rows = (int(found["least"] or 0), int(found["most"] or 0))
    marks = (bool(found[name]) for name in ("loose", "optional", "follows"))
    return NoteLine(parse(found["text"]), bool(found["repeat"]), rows, *marks)


def _layout(text: str) -> Layout:
    blocks: list[list[NoteLine]] = []
    for line in map(_line, text.split("\n")):
        before = blocks[-1][-1] if blocks else None
        row = line.repeated and not line.rows[1]
        if before is not None and (row or (line.loose and before.loose and not line.repeated)):
            blocks[-1].append(line)
        else:
            blocks.append([line])
    names = frozenset(name for block in blocks for line in block for name in slots(line.text))
    return Layout(tuple(map(tuple, blocks)), names)


def _kind(path: Path, heldout: bool) -> Kind:
    head, _, questions = path.read_text(encoding="utf-8").rstrip("\n").partition("\n===\n")
    declared, *layouts = head.split("\n---\n")
    share = re.match(r"share (\S+)\n", declared)
    if share:
        declared = declared[share.end() :]
    asked: dict[str, tuple[str, ...]] = {}
    for line in questions.split("\n"):
        name, _, texts = line.partition("? ")
        asked[name] = asked.get(name, ()) + tuple(texts.split(" | "))
    fields: dict[str, Field] = {}
    for line in declared.split("\n"):
        name, mark, written = line.partition(" := ")
        if not mark:
            raise ValueError(f"{path.name}: {line!r} declares no field")
        value, plain = parse(written), name.lstrip("*")
        closed = {*slots(value)} <= {*CLOSED} and all(not isinstance(part, str) for part in value)
        fields[plain] = Field(plain, value, name != plain, closed, asked.pop(plain, ()))
    unstated = asked.pop("!", ())
    if asked:
        raise ValueError(f"{path.name}: questions of no field: {', '.join(asked)}")
    return Kind(
        path.stem, heldout, float(share[1]) if share else 1.0, fields, tuple(map(_layout, layouts)), unstated
    )


def _kinds() -> Iterator[Kind]:
    for folder, heldout in (("kinds", False), ("heldout_kinds", True)):
        for path in sorted((_HERE / folder).glob("*.txt")):
            yield _kind(path, heldout)


def groups(kinds: Iterable[Kind]) -> Iterator[tuple[str, ...]]:
    """Options that stand for each other: the questions of a field, those of no field, and choices of layouts."""
    for kind in kinds:
        yield from (field.asked for field in kind.fields.values())
        yield kind.unstated
        for layout in kind.layouts:
            for block in layout.blocks:
                yield from (choice.text for line in block for choice in choices(line.text))


def _held_out(every: list[tuple[str, ...]]) -> frozenset[str]:
    """One option of each group of three or more, the one with the smallest hash that leaves every group another one.

    A wording that says which fields are stated is none that could be left out.
    """
    within: dict[str, list[tuple[str, ...]]] = {}
    for group in every:
        for text in group:
            within.setdefault(text, []).append(group)
    held: set[str] = set()
    for group in every:
        states = "{" in "".join(group) and not group[0].endswith(("?", "？"))
        if len(group) >= _MANY and held.isdisjoint(group) and not states:
            spare = (t for t in by_hash(group) if t and all({*other} - held - {t} for other in within[t]))
            held.update(islice(spare, 1))
    return frozenset(held)


KINDS: tuple[Kind, ...] = tuple(_kinds())
HELDOUT: frozenset[str] = _held_out([*groups(kind for kind in KINDS if not kind.heldout)])
"""Questions and wordings that are held out of training, wherever else they are an option."""


def allowed(options: Iterable[str]) -> tuple[str, ...]:
    """Those of some options that training may use."""
    return tuple(option for option in options if option not in HELDOUT)


def option(choice: Choice, text: str) -> Template:
    return choice.options[choice.text.index(text)]
