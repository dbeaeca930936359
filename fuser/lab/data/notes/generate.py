"""Documents of everyday kinds with questions whose answers are literal, generated from a seed.

Held out of split `train` are a fifth of all words and values, one phrasing in each group of three or more, one form of
tables and of labels, and whole kinds. `unanswerable` and `heldout_unanswerable` are documents like those of `train` and
`heldout`, with questions that they do not answer although they state something alike: their answer is `NO_ANSWER`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from random import Random

from fuser.lab.data.notes.kinds import KINDS, Field, Kind
from fuser.lab.data.notes.notation import parse, slots
from fuser.lab.data.notes.values import Draw, Unfit
from fuser.lab.data.notes.writer import DOCUMENT, Writer

SPLITS = ("train", "heldout", "heldout_kinds", "unanswerable", "heldout_unanswerable")
TRAINING = ("train", "unanswerable")
"""The splits to train on."""
NO_ANSWER = "not stated"
"""The answer to what a document does not state: what training teaches a Receiver to say (`answer.abstain`)."""
CHARS = (150, 1500)
"""Fewest and most characters of a document."""
QUESTIONS = (2, 4)
"""Fewest and most questions on a document."""
_parsed = cache(parse)
_ALIKE = {"unanswerable": "train", "heldout_unanswerable": "heldout"}
_TRIES, _ASKED = 400, 40  # at one document; at its unanswered questions


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and its answer, which the document of the splits with answers has `times` times, all for `field`."""

    text: str
    answer: str
    field: str
    times: int


@dataclass(frozen=True, slots=True)
class Note:
    """A document of a kind and two to four questions on it."""

    document: str
    kind: str
    questions: tuple[Asked, ...]


def generate(seed: int, count: int, split: str, longest: int = CHARS[1]) -> Iterator[Note]:
    """Yields `count` notes with different documents of at most `longest` characters; the same arguments give the same.

    Raises:
        ValueError: an unknown split, or `longest` leaves too few documents.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    random = Random(f"notes:{split}:{seed}")
    draw = Draw(random, heldout=split not in TRAINING)
    kinds = [kind for kind in KINDS if kind.heldout == (_ALIKE.get(split, split) == "heldout_kinds")]
    shares, seen = [kind.share for kind in kinds], set[str]()
    while len(seen) < count:
        note = _note(random.choices(kinds, shares)[0], draw, split in _ALIKE, longest)
        if note.document not in seen:
            seen.add(note.document)
            yield note


def _note(kind: Kind, draw: Draw, unanswered: bool, longest: int) -> Note:
    for _ in range(_TRIES):
        try:
            writer = Writer(kind, draw)
            if CHARS[0] <= len(writer.document) <= longest:
                asked = _asked(_unanswered(writer) if unanswered else _answered(writer), draw.random)
                return Note(writer.document, kind.name, asked)
        except Unfit:
            continue
    raise ValueError(f"no {kind.name} of {CHARS[0]} to {longest} characters in {_TRIES} tries")


def _asked(found: Iterator[Asked], random: Random) -> tuple[Asked, ...]:
    """The first different ones, as many as chance says, in any order."""
    wanted, kept = random.randint(*QUESTIONS), dict[str, Asked]()
    for asked in found:
        kept.setdefault(asked.text, asked)
        if len(kept) == wanted:
            break
    if len(kept) < QUESTIONS[0]:
        raise Unfit
    return tuple(random.sample([*kept.values()], len(kept)))


def _answered(writer: Writer) -> Iterator[Asked]:
    """Questions that the document answers: one of each field, then of other rows."""
    random = writer.draw.random
    places = []
    for field in _askable(writer):
        rows = [row for row in (writer.rows if field.of_row else (DOCUMENT,)) if writer.stated(field, row)]
        random.shuffle(rows)
        places += [(turn, random.random(), field, row) for turn, row in enumerate(rows)]
    for _, _, field, row in sorted(places, key=lambda place: place[:2]):
        with suppress(Unfit):
            answer, question = writer.said(field.name, row), _question(writer, field.asked, row)
            if answer not in question:
                yield Asked(question, answer, field.name, writer.stated(field, row))


def _unanswered(writer: Writer) -> Iterator[Asked]:
    """Near-misses: what the layout might state and does not, a row that is not there, what no such document states."""
    random, rows = writer.draw.random, [*writer.rows] or [DOCUMENT]
    might = [(field, row) for field in _askable(writer) if field.name in writer.layout.slots for row in rows]
    missing = [place for place in might if not writer.stated(*place)]
    elsewhere = [place for place in might if writer.stated(*place) and place[0].of_row]
    for _ in range(_ASKED):
        ways = [(way, share) for way, share in ((missing, 7), (elsewhere, 3), ([], 1)) if way or share == 1]
        way = random.choices([way for way, _ in ways], [share for _, share in ways])[0]
        with suppress(Unfit):
            if way:
                field, row = random.choice(way)
                yield Asked(_question(writer, field.asked, row, way is elsewhere), NO_ANSWER, field.name, 0)
            else:
                yield Asked(_question(writer, writer.kind.unstated, random.choice(rows)), NO_ANSWER, "", 0)


def _askable(writer: Writer) -> list[Field]:
    return [f for f in writer.kind.fields.values() if f.asked and not (f.closed and writer.draw.heldout)]


def _question(writer: Writer, options: tuple[str, ...], row: int, other: bool = False) -> str:
    """One of these questions, about what the document states. other: about values that its rows do not have."""
    fitting = []
    for option in options:
        fields = [writer.kind.fields[name] for name in slots(_parsed(option))]
        if all(writer.stated(f, row) for f in fields) and (not other or any(f.of_row for f in fields)):
            fitting.append(option)
    text = writer.phrasing(tuple(fitting))
    for name in slots(_parsed(text)):
        of_row = writer.kind.fields[name].of_row
        said = writer.unsaid(name) if other and of_row else writer.said(name, row)
        text = text.replace(f"{{{name}}}", said)
    return text
