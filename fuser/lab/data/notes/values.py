"""Values: identifiers, amounts, dates, names and all else that a slot stands for, put together at random.

A slot `{...}` of a value, or one of a layout that names no field of the document, is one of

    9999, AA9, hhhh   digits, capitals, small letters (a), hexadecimal digits (h)
    5..900            a number of the range, padded with noughts as its lower end is and with as many decimals; it is
                      as often short as long. What follows groups the thousands: 5..90000, and . and ' and _ (a blank)
    date, time ...    from the document's own calendar and clock, which only go forward (`_SPECIAL`)
    file word ...     a word of a list of `values.toml`, or of the generated records (`fuser.lab.data.records`)
    amount ...        a value of `values.toml`: any template of a list; its `<a|b>` is chosen once a document
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random

from fuser.lab.data.notes.notation import Choice, Template, parse
from fuser.lab.data.records.words import LISTS, Words, fillers, is_heldout, words_of

_TABLE = tomllib.loads(Path(__file__).with_name("values.toml").read_text(encoding="utf-8"))
OWN_LISTS: dict[str, list[str]] = {name: words_of(text) for name, text in _TABLE["lists"].items()}
"""Word lists by name; a fifth of each is held out."""
CLOSED: dict[str, list[str]] = {name: words_of(text) for name, text in _TABLE["closed"].items()}
"""Lists too small to hold anything out: what they say is asked in training alone."""
_VALUES: dict[str, list[Template]] = {
    name: [parse(text) for text in ([written] if isinstance(written, str) else written)]
    for name, written in _TABLE["values"].items()
}
_DATES, _TIMES, _STAMPS = (_TABLE["formats"][name] for name in ("dates", "times", "stamps"))
_RANGE = re.compile(r"(\d+(?:\.\d+)?)\.\.(\d+(?:\.\d+)?)([,.'_]?)")
_SHAPE = re.compile("[9Aah]+")
_POOLS = {
    "9": "0123456789",
    "A": "ABCDEFGHJKLMNPQRSTUVWXYZ",
    "a": "abcdefghijkmnpqrstuvwxyz",
    "h": "0123456789abcdef",
}
_WIDE = 50
"""Ranges whose ends are this many times apart are drawn by their logarithm."""
HANDLE = ".handle"
"""Marks a slot that stands for a field as addresses have it: `{name.handle}`."""
TRIES = 60


class Unfit(Exception):
    """This draw gives no document: another one is needed."""


class Draw:
    """The draws of one split: its half of every list, and values on its side of the hold-out.

    Args:
        heldout: whether what is drawn is held out of training.
    """

    def __init__(self, random: Random, heldout: bool) -> None:
        self.random, self.heldout = random, heldout
        self.words = Words(random, heldout, coined=True)
        self.lists = {
            name: [word for word in words if is_heldout(word) == heldout] for name, words in OWN_LISTS.items()
        } | CLOSED
        self.begin()

    def begin(self) -> None:
        """Begin a document: nothing is settled, and its calendar and clock are set."""
        self._settled: dict[Choice | str, int] = {}
        self.now = datetime(2019, 1, 1) + timedelta(
            days=self.random.randrange(3600), seconds=self.random.randrange(21_000, 46_000)
        )

    def settled(self, what: Choice | str, count: int) -> int:
        """Which of `count` options this document has; the same whenever it is asked."""
        if what not in self._settled:
            self._settled[what] = self.random.randrange(count)
        return self._settled[what]

    def fill(self, template: Template, scope: Mapping[str, str]) -> str:
        """A value as the template says; fields of `scope` stand in it by their handles (`{name.handle}`) alone."""
        found = []
        for part in template:
            if isinstance(part, str):
                found.append(part)
            elif isinstance(part, Choice):
                found.append(
                    self.fill(part.options[self.settled(part.key or part, len(part.options))], scope)
                )
            elif part.name.endswith(HANDLE):
                found.append(handle(scope[part.name.removesuffix(HANDLE)]))
            else:
                found.append(_maker(part.name)(self))
        return "".join(found)

    def fitting(self, template: Template, scope: Mapping[str, str], taken: Mapping[str, str]) -> str:
        """A filled template on this split's side of the hold-out, mostly none of the values of `taken`.

        Raises:
            Unfit: there was none.
        """
        now = self.now
        for _ in range(TRIES):
            text = self.fill(template, scope)
            if text not in taken and is_heldout.__wrapped__(text) == self.heldout:
                return text
            self.now = now
        raise Unfit


def handle(name: str) -> str:
    """A name as an address has it: small plain letters, with dots between."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return ".".join(re.findall("[a-z0-9]+", plain))


@cache
def _maker(name: str) -> Callable[[Draw], str]:
    if name in _SPECIAL:
        return _SPECIAL[name]
    if name in _VALUES:
        templates = _VALUES[name]
        return lambda draw: draw.fill(draw.random.choice(templates), {})
    if name in OWN_LISTS or name in CLOSED:
        return lambda draw: draw.random.choice(draw.lists[name])
    if name in LISTS:
        return lambda draw: draw.words.word(name)
    if found := _RANGE.fullmatch(name):
        return lambda draw: _number(draw.random, found[1], found[2], found[3])
    if _SHAPE.fullmatch(name):
        return lambda draw: "".join(draw.random.choice(_POOLS[sign]) for sign in name)
    raise ValueError(f"{{{name}}} is no field, value or word list")


def _number(random: Random, low: str, high: str, groups: str) -> str:
    decimals = len(low.partition(".")[2])
    least, most = float(low), float(high)
    if least and most / least > _WIDE:
        number = least * (most / least) ** random.random()
    else:
        number = random.uniform(least, most + (not decimals) * 0.999)
    if not decimals:
        number = int(number)
    text = f"{number:{',' if groups else ''}.{decimals}f}"
    if groups == ".":
        text = text.translate({ord(","): ".", ord("."): ","})
    elif groups in ("'", "_"):
        text = text.replace(",", groups.replace("_", " "))
    return text.zfill(len(low)) if low.startswith("0") and len(low) > 1 and not decimals else text


def _date(draw: Draw) -> str:
    draw.now += timedelta(days=draw.random.randrange(1, 40))
    return _written(draw, draw.now, _DATES, "date")


def _past(draw: Draw) -> str:
    day = datetime(1938, 1, 1) + timedelta(days=draw.random.randrange(29_000))
    return _written(draw, day, _DATES, "date")


def _time(draw: Draw) -> str:
    draw.now += timedelta(minutes=draw.random.randrange(1, 75))
    if draw.settled("minutes", 2):
        draw.now += timedelta(minutes=-draw.now.minute % 5)
    return _written(draw, draw.now, _TIMES, "time")


def _stamp(draw: Draw) -> str:
    draw.now += timedelta(milliseconds=draw.random.randrange(100, 90_000))
    return _written(draw, draw.now, _STAMPS, "stamp")


def _written(draw: Draw, at: datetime, formats: list[str], name: str) -> str:
    text = at.strftime(formats[draw.settled(name, len(formats))])
    return text.replace("~0", "").replace("~", "").replace("^", f"{at.microsecond // 1000:03}")


_SPECIAL: dict[str, Callable[[Draw], str]] = {
    "date": _date,
    "past date": _past,
    "time": _time,
    "stamp": _stamp,
    "company": lambda draw: draw.words.company(),
    "filler": lambda draw: fillers(draw.words, 1)[0],
}
