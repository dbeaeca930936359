"""Values and entities: what a fact says, and about whom."""

from collections.abc import Callable
from dataclasses import dataclass

from fuser.lab.data.records.words import COINED_LISTS, LISTS, Words

_NAMES_OF_MONTHS = "January February March April May June July August September October November December"
MONTHS = _NAMES_OF_MONTHS.split()
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Entity:
    """Someone or something that facts are about; `subject`, `object`, `possessive` are its pronouns."""

    domain: str
    name: str
    short: str
    subject: str = "it"
    object: str = "it"
    possessive: str = "its"


def _person(words: Words) -> str:
    return f"{words.word(words.random.choice(('woman', 'man')))} {words.word('last')}"


def _code(words: Words) -> str:
    """Codes of several shapes: KX-4471, B17, 88-204-C, Q7R-52."""
    random = words.random
    shapes = ("AA-9999", "A99", "99-999-A", "A9A-99", "AAA999", "9A-9A9", "A-999999", "AA99")
    pools = {"A": _LETTERS, "9": "123456789"}
    return "".join(random.choice(pools[c]) if c in pools else c for c in random.choice(shapes))


def _price(words: Words) -> str:
    random = words.random
    amount = random.choice((random.randrange(20, 1000), random.randrange(1000, 99999, 50)))
    text = f"{amount:,}"
    return random.choice(
        (f"${text}", f"£{text}", f"€{text}", f"{text} euros", f"{text} dollars", f"{text} crowns")
    )


def _fee(words: Words) -> str:
    random = words.random
    amount = random.choice(
        (f"{random.randrange(4, 700)}", f"{random.randrange(4, 90)}.{random.randrange(10, 100, 5)}")
    )
    return random.choice((f"${amount}", f"£{amount}", f"€{amount}", f"{amount} euros", f"{amount} crowns"))


def _date(words: Words) -> str:
    random = words.random
    day, month = random.randrange(1, 29), random.choice(MONTHS)
    return random.choice(
        (f"{day} {month}", f"{month} {day}", f"{day} {month} {random.randrange(2021, 2040)}")
    )


def _birth_date(words: Words) -> str:
    random = words.random
    return f"{random.randrange(1, 29)} {random.choice(MONTHS)} {random.randrange(1931, 2006)}"


def _time(words: Words) -> str:
    random = words.random
    hour, minute = random.randrange(1, 24), random.randrange(0, 60)
    half = "am" if hour < 12 else "pm"
    return random.choice(
        (f"{hour}:{minute:02}", f"{hour:02}:{minute:02}", f"{(hour - 1) % 12 + 1}:{minute:02} {half}")
    )


def _dosage(words: Words) -> str:
    random = words.random
    small = f"{random.randrange(2, 100)} {random.choice(('milligrams', 'mg', 'millilitres', 'drops'))}"
    return random.choice((small, f"{random.randrange(100, 1500, 5)} {random.choice(('milligrams', 'mg'))}"))


def _weight(words: Words) -> str:
    random = words.random
    amount = random.choice((str(random.randrange(3, 400)), f"{random.uniform(1, 60):.1f}"))
    return f"{amount} {random.choice(('kilograms', 'kg', 'pounds'))}"


def _university(words: Words) -> str:
    place = words.word("place")
    return words.random.choice((f"{place} University", f"the University of {place}", f"{place} Polytechnic"))


GENERATED: dict[str, Callable[[Words], str]] = {
    "number": lambda w: str(w.random.randrange(12, 9999)),
    "count": lambda w: f"{w.random.choice((w.random.randrange(6, 400), w.random.randrange(400, 9000))):,}",
    "small count": lambda w: str(w.random.randrange(5, 99)),
    "year": lambda w: str(w.random.randrange(1810, 2024)),
    "code": _code,
    "price": _price,
    "fee": _fee,
    "date": _date,
    "birth date": _birth_date,
    "time": _time,
    "dosage": _dosage,
    "weight": _weight,
    "flight": lambda w: "".join(w.random.sample(_LETTERS, 2)) + f" {w.random.randrange(101, 9999)}",
    "gate": lambda w: w.random.choice(_LETTERS[:8]) + str(w.random.randrange(1, 80)),
    "server": lambda w: f"{w.random.choice(LISTS['code word']).lower()}-{w.random.randrange(1, 40):02}",
    "tonnage": lambda w: f"{w.random.randrange(90, 9900, 10):,} tonnes",
    "callsign": lambda w: "".join(w.random.sample(_LETTERS, 4)) + str(w.random.randrange(2, 10)),
    "room": lambda w: w.random.choice(
        (
            f"room {w.random.randrange(101, 999)}",
            f"hall {w.random.choice(_LETTERS)}{w.random.randrange(1, 30)}",
        )
    ),
}
"""Kinds whose strings are held out by their hash."""

COMPOSED: dict[str, Callable[[Words], str]] = {
    "person": _person,
    "doctor": lambda w: f"Dr {w.word('last')}",
    "company": Words.company,
    "university": _university,
    "hotel": lambda w: f"the {w.word('code word')} {w.word('hotel noun')}",
    "street": lambda w: f"{w.word('last')} {w.word('street noun')}",
    "venue": lambda w: f"{w.word('last')} {w.word('building noun')}",
    "title": lambda w: f"The {w.word('title adjective')} {w.word('title noun')}",
}
"""Kinds made of words that are each held out."""

NAME_KINDS = frozenset({*COINED_LISTS, "person", "doctor", "university", "street", "venue"})
"""Kinds with a name in them that can be coined."""
PERSON_KINDS = frozenset({"person", "doctor"})
"""After such a value, `she` or `he` could mean the wrong person."""
THING_KINDS = frozenset({"company", "university", "hotel", "street", "venue", "server", "product", "cargo"})
"""After such a value, `it` could mean the wrong thing."""


def value(kind: str, words: Words) -> str:
    """A value of `kind` on this split's side of the hold-out."""
    if kind in COMPOSED:
        return COMPOSED[kind](words)
    if kind in GENERATED:
        return words.fitting(lambda: GENERATED[kind](words))
    return words.word(kind)


def _somebody(domain: str, words: Words) -> Entity:
    woman = words.random.random() < 0.5
    first, last = words.word("woman" if woman else "man"), words.word("last")
    pronouns = ("she", "her", "her") if woman else ("he", "him", "his")
    return Entity(domain, f"{first} {last}", first, *pronouns)


_NAMES: dict[str, Callable[[Words], tuple[str, str]]] = {
    "object": lambda w: (f"the {w.word('last')}", w.word("object noun")),
    "company": lambda w: (w.company(), ""),
    "project": lambda w: ("Project", w.word("last") if w.random.random() < 0.5 else w.word("place")),
    "trip": lambda w: (f"the {w.word('place')}", w.word("trip noun")),
    "event": lambda w: (f"the {w.word('code word')}", w.word("event noun")),
    "building": lambda w: (w.word("last"), w.word("building noun")),
    "ship": lambda w: (f"the {w.word('ship noun')}", w.word("code word")),
    "restaurant": lambda w: (
        f"the {w.word('title adjective')} {w.word('title noun')}",
        w.word("restaurant noun"),
    ),
    "course": lambda w: ("the course in", w.word("subject")),
    "parcel": lambda w: ("the parcel for", w.word("last")),
}


def entity(domain: str, words: Words) -> Entity:
    if domain in ("person", "patient"):
        return _somebody(domain, words)
    name = " ".join(part for part in _NAMES[domain](words) if part)
    return Entity(domain, name, name)
