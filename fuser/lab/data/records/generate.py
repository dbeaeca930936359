"""Records for training and evaluation: fictional documents, questions and short answers, generated from a seed.

What could be learnt by heart is divided: about a fifth of all names and values, one statement and one question of
every attribute, and 15 % of the attributes never occur in split `train`. Splits `coined` and `heldout_coined` are like
`train` and `heldout`, but most of their questions ask for names, and names are put together from syllables: hardly any
occurs twice. Each question of split `heldout_two`, which is otherwise like `heldout`, asks for two facts of one entity.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from fuser.lab.data.records.attributes import BY_DOMAIN, Attribute
from fuser.lab.data.records.exchange import another_value
from fuser.lab.data.records.text import Fact, document, double_question, question
from fuser.lab.data.records.values import MONTHS, NAME_KINDS, Entity, entity, value
from fuser.lab.data.records.words import COMPANY_TAILS, LISTS, SHARED_LISTS, Words

SPLITS = ("train", "heldout", "heldout_attributes", "coined", "heldout_coined")
TRAINING = ("train", "coined")
"""The splits to train on."""
TWO = "heldout_two"
"""The split whose answers stand in two places."""
_COINED = ("coined", "heldout_coined")
_LIKE = {"coined": "train", "heldout_coined": "heldout", TWO: "heldout"}
"""The split whose attributes and phrasings a split has, where those are not its own."""
_PLAIN = [split for split in SPLITS if split not in _LIKE]
WORDS = (25, 110)
"""Fewest and most words of a document."""
SENTENCES = 7
"""Most facts and neutral sentences of a document, together."""


@dataclass(frozen=True)
class Example:
    """A question on a document. `answer` is a literal part of `document` and occurs there once.

    other: a value of the answer's kind for which it can be exchanged there (`fuser.lab.data.records.exchange`). parts:
    of an answer to two questions at once, which is both joined by a comma, and no part of the document as a whole.
    """

    document: str
    question: str
    answer: str
    attribute: str
    split: str
    other: str = ""
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """A document and two to four questions on it, in split `heldout_two` one or two."""

    document: str
    examples: tuple[Example, ...]


def generate(seed: int, count: int, split: str) -> Iterator[Record]:
    """Yields `count` records with different documents. The same arguments give the same records.

    Raises ValueError for an unknown split.
    """
    if split not in (*SPLITS, TWO):
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join((*SPLITS, TWO))}")
    # Values to exchange are drawn apart: what records of a seed say does not hang on them.
    words, others = (
        Words(Random(f"{split}:{name}"), heldout=split not in TRAINING, coined=split in _COINED)
        for name in (seed, f"{seed}:others")
    )
    seen: set[str] = set()
    while len(seen) < count:
        record = _record(words, others, split, _LIKE.get(split, split))
        if record is not None and record.document not in seen:
            seen.add(record.document)
            yield record


def _usable(domain: str, split: str) -> tuple[Attribute, ...]:
    if split == "train":
        return tuple(attribute for attribute in BY_DOMAIN[domain] if not attribute.heldout)
    if split == "heldout":
        return tuple(
            attribute for attribute in BY_DOMAIN[domain] if not (attribute.heldout or attribute.closed)
        )
    return tuple(attribute for attribute in BY_DOMAIN[domain] if not attribute.closed)


def _askable(attribute: Attribute, split: str) -> bool:
    return attribute.heldout == (split == "heldout_attributes")


_USABLE = {(domain, split): _usable(domain, split) for domain in BY_DOMAIN for split in _PLAIN}
_DOMAINS = {
    split: [
        attribute.domain
        for domain in BY_DOMAIN
        for attribute in _USABLE[domain, split]
        if _askable(attribute, split)
    ]
    for split in _PLAIN
}
"""Domains, each as often as it has attributes to ask for."""


def _attribute(words: Words, who: Entity, taken: set[str], split: str) -> Attribute | None:
    """An attribute that `who` does not have yet; mostly one held out, or of names, where questions ask for those."""
    free = [attribute for attribute in _USABLE[who.domain, split] if attribute.name not in taken]
    if split == "heldout_attributes" and words.random.random() < 0.75:
        free = [attribute for attribute in free if attribute.heldout] or free
    if words.coined and words.random.random() < 0.75:
        free = [attribute for attribute in free if attribute.kind in NAME_KINDS] or free
    return words.random.choice(free) if free else None


def _facts(words: Words, split: str) -> list[Fact]:
    """Two to six facts on one to three entities. In half of the documents two entities share an attribute."""
    random = words.random
    domain = random.choice(_DOMAINS[split])
    entities = [entity(domain, words)]
    distract = random.random() < 0.4
    for index in range(random.choices((int(distract), 1, 2), (4, 3, 3))[0]):
        same = (distract and index == 0) or random.random() < 0.5
        entities.append(entity(domain if same else random.choice(_DOMAINS[split]), words))
    taken: dict[str, set[str]] = {who.name: set() for who in entities}
    facts: list[Fact] = []
    for index in range(random.randint(max(2, len(entities)), 6)):
        who = entities[index] if index < len(entities) else random.choice(entities)
        attribute = _attribute(words, who, taken[who.name], split)
        if distract and index == 1:
            attribute = facts[0].attribute
        if attribute is not None and attribute.name not in taken[who.name]:
            taken[who.name].add(attribute.name)
            facts.append(Fact(who, attribute, value(attribute.kind, words)))
    return facts


def _distinct(facts: list[Fact]) -> bool:
    """No word of a name or value stands for two things."""
    parts = {who.name for who in {fact.entity for fact in facts}} | {fact.value for fact in facts}
    names = {fact.entity for fact in facts}
    if len(parts) < len(names) + len(facts):
        return False
    words = [word for part in parts for word in part.split() if word[0].isupper() and word not in _COMMON]
    return len(words) == len(set(words))


_COMMON = frozenset(
    {
        "Project",
        "Dr",
        "The",
        "University",
        "Polytechnic",
        "Sons",
        "Daughters",
        "Brothers",
        *COMPANY_TAILS,
        *MONTHS,
    }
    | {word for name in SHARED_LISTS for noun in LISTS[name] for word in noun.split()}
)
"""Words that two names or values may have in common."""


def _record(words: Words, others: Words, split: str, like: str) -> Record | None:
    """One record of `split`, with attributes as in split `like`, or None when the draw does not fit."""
    facts = _facts(words, like)
    if len(facts) < 2 or not _distinct(facts):
        return None
    neutral = words.random.randint(0, min(3, SENTENCES - len(facts)))
    text = document(facts, neutral, words)
    if not WORDS[0] <= len(text.split()) <= WORDS[1] or any(text.count(fact.value) != 1 for fact in facts):
        return None
    asked = [fact for fact in facts if _askable(fact.attribute, like)]
    if len(asked) < 2:
        return None
    if split == TWO:
        pairs = [pair for pair in combinations(asked, 2) if pair[0].entity == pair[1].entity]
        if not pairs:
            return None
        some = words.random.sample(pairs, min(len(pairs), 2))
        return Record(text, tuple(_both(text, words.random.sample(pair, 2), words) for pair in some))
    chosen_facts = words.random.sample(asked, min(len(asked), words.random.randint(2, 4)))
    examples = [
        Example(
            text,
            question(fact, words),
            fact.value,
            _named(fact),
            split,
            another_value(fact, facts, text, _distinct, others),
        )
        for fact in chosen_facts
    ]
    return Record(text, tuple(examples))


def _both(text: str, facts: Sequence[Fact], words: Words) -> Example:
    one, two = facts
    asked, named = double_question(one, two, words), f"{_named(one)} and {_named(two)}"
    return Example(text, asked, f"{one.value}, {two.value}", named, TWO, parts=(one.value, two.value))


def _named(fact: Fact) -> str:
    return f"{fact.attribute.domain}.{fact.attribute.name}"
