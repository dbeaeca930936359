"""`Words`: the draws of one split from the word lists, so that held-out words never reach training; neutral sentences,
which state nothing that a question asks for, and the frames that may introduce a statement."""

import hashlib
import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

_HERE = Path(__file__).parent


def read_toml(name: str) -> dict[str, Any]:
    return tomllib.loads((_HERE / name).read_text(encoding="utf-8"))


def words_of(text: str) -> list[str]:
    """Words with commas between, over as many lines as they take."""
    return [" ".join(word.split()) for word in text.split(",")]


_TABLE = read_toml("words.toml")
LISTS: dict[str, list[str]] = {name: words_of(text) for name, text in _TABLE["lists"].items()}
"""Every word list by name."""
STEM_STARTS, STEM_ENDS, COMPANY_TAILS = (
    words_of(_TABLE["companies"][part]) for part in ("starts", "ends", "tails")
)
"""What the names of companies are put together from."""
CLOSED = frozenset({"blood", "weekday"})
"""Kinds too small to hold anything out: attributes with them are asked in split `train` only."""
SHARED_LISTS = frozenset(name for name in LISTS if name.endswith(" noun") and name != "title noun")
"""Common nouns inside a name: shared by all splits, the name around them is held out by its other part."""
COINED_LISTS = ("woman", "man", "last", "place", "petname", "medicine")
"""Lists of names that can be coined: every real document is full of names that no training has seen."""
_SYLLABLE = re.compile(r"[^aeiouy]*[aeiouy]+(?:[^aeiouy]+$)?|[^aeiouy]+", re.IGNORECASE)


@cache
def is_heldout(text: str) -> bool:
    """True for about 20 % of all strings; stable over runs and machines."""
    return hashlib.sha256(text.lower().encode()).digest()[0] < 51


def half(name: str, heldout: bool) -> list[str]:
    """The words of list `name` that one side of the hold-out may use."""
    if name in CLOSED or name in SHARED_LISTS:
        return LISTS[name]
    return [word for word in LISTS[name] if is_heldout(word) == heldout]


@cache
def syllables(name: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The first, the inner and the last syllables (roughly) of the words of list `name`."""
    parts = [_SYLLABLE.findall(word) for word in LISTS[name]]
    inner = tuple(part for word in parts for part in word[1:-1])
    return tuple(word[0] for word in parts), inner, tuple(word[-1].lower() for word in parts)


class Words:
    """Draws of one split. Words of lists come from that split's half; composed strings are drawn until they fit.

    coined: the names of `COINED_LISTS` are put together from syllables of the list, and hardly ever one of it.
    """

    def __init__(self, random: Random, heldout: bool, coined: bool = False) -> None:
        self.random, self.heldout, self.coined = random, heldout, coined
        self.lists = {name: half(name, heldout) for name in LISTS}

    def word(self, name: str) -> str:
        if self.coined and name in COINED_LISTS:
            return self.fitting(lambda: self._coin(*syllables(name)))
        return self.random.choice(self.lists[name])

    def _coin(self, first: tuple[str, ...], inner: tuple[str, ...], last: tuple[str, ...]) -> str:
        choice, between = self.random.choice, self.random.choice((0, 0, 1, 1, 2))
        return "".join((choice(first), *(choice(inner) for _ in range(between)), choice(last)))

    def fitting(self, make: Callable[[], str]) -> str:
        """The first string of `make` on this split's side of the hash."""
        while is_heldout(text := make()) != self.heldout:
            pass
        return text

    def company(self) -> str:
        choice, stem = self.random.choice, self.fitting(lambda: self._stem())
        shape = self.random.random()
        if shape < 0.2:
            return f"{self.word('last')} {choice(('& Sons', '& Daughters', 'Brothers'))}"
        return stem if shape < 0.3 else f"{stem} {choice(COMPANY_TAILS)}"

    def _stem(self) -> str:
        return self.random.choice(STEM_STARTS) + self.random.choice(STEM_ENDS)


_FILLERS_TABLE = read_toml("fillers.toml")
FILLERS: list[str] = _FILLERS_TABLE["sentences"].splitlines()
FRAMES: list[str] = _FILLERS_TABLE["frames"].splitlines()
_CHOICES = {slot: words_of(text) for slot, text in _FILLERS_TABLE["slots"].items()}


def fillers(words: Words, count: int) -> list[str]:
    choice, sentences = words.random.choice, []
    for template in words.random.sample(FILLERS, count):
        slots = {slot: choice(options) for slot, options in _CHOICES.items()}
        sentences.append(template.format(place=words.word("place"), **slots))
    return sentences


def frame(words: Words) -> str:
    """The beginning of a sentence that a statement may follow."""
    return words.random.choice(FRAMES)
