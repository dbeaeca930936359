"""A document that says something else of a name: an answer's value exchanged for another of its kind."""

import re
from collections.abc import Callable, Sequence

from fuser.lab.data.records.text import Fact, article
from fuser.lab.data.records.values import value
from fuser.lab.data.records.words import Words

_DRAWS = 1000  # of a list of some forty, one alone may fit


def exchanged(document: str, one: str, other: str) -> str:
    """A document in which two values stand for each other, with the articles that they take."""
    pattern = rf"(?<!\w)(?:(?P<article>[Aa]n?) )?(?P<value>{re.escape(one)}|{re.escape(other)})(?!\w)"

    def turned(found: re.Match[str]) -> str:
        said = other if found["value"] == one else one
        if not found["article"]:
            return said
        said = article(said)
        return said[0].upper() + said[1:] if found["article"][0] == "A" else said

    return re.sub(pattern, turned, document)


def another_value(
    fact: Fact, facts: Sequence[Fact], document: str, distinct: Callable[[list[Fact]], bool], words: Words
) -> str:
    """What the document could say in place of a fact's value: another fact's of the same kind, else one that is drawn.

    Both begin with a letter of the same size, so that either may begin a sentence. Where this side of the hold-out
    has no other value, it is one of the other side.

    Args:
        distinct: whether no word of some facts stands for two things. words: draw the value.

    Raises:
        RuntimeError: the lists of words hold no other value that fits.
    """

    def fits(other: str) -> bool:
        return other != fact.value and other[0].islower() == fact.value[0].islower()

    rest = [one for one in facts if one is not fact]
    stated = [one.value for one in rest if one.attribute.kind == fact.attribute.kind and fits(one.value)]
    if stated:
        return words.random.choice(stated)
    for heldout in (words.heldout, not words.heldout):
        side = words if heldout == words.heldout else Words(words.random, heldout, words.coined)
        for _ in range(_DRAWS):
            drawn = value(fact.attribute.kind, side)
            free = fits(drawn) and drawn not in document and fact.value not in drawn
            if free and distinct([*rest, Fact(fact.entity, fact.attribute, drawn)]):
                return drawn
    raise RuntimeError(f"no value but {fact.value!r} fits {fact.attribute.name!r}")
