"""From facts to a document: sentences, pronouns and formats."""

import re
from dataclasses import dataclass

from fuser.lab.data.records.attributes import Attribute
from fuser.lab.data.records.values import PERSON_KINDS, THING_KINDS, Entity
from fuser.lab.data.records.words import Words, fillers, frame


@dataclass(frozen=True, slots=True)
class Fact:
    """`entity` has `value` for `attribute`."""

    entity: Entity
    attribute: Attribute
    value: str


def possessive(name: str) -> str:
    return name + ("'" if name.endswith("s") else "'s")


def capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def phrasing(words: Words, known: tuple[str, ...], heldout: tuple[str, ...]) -> str:
    """A phrasing this split may use; held-out ones half of the time where they are allowed."""
    if words.heldout and words.random.random() < 0.5:
        return words.random.choice(heldout)
    return words.random.choice(known)


def article(value: str) -> str:
    return f"{'an' if value[0] in 'aeiou' and not value.startswith(('uni', 'uk', 'eu')) else 'a'} {value}"


def question(fact: Fact, words: Words) -> str:
    attribute, name = fact.attribute, fact.entity.name
    if words.random.random() < 0.08:
        name = fact.entity.short
    template = phrasing(words, attribute.questions, attribute.heldout_questions)
    return capitalised(template.replace("{N's}", possessive(name)).replace("{N}", name))


def double_question(one: Fact, two: Fact, words: Words) -> str:
    """A question that both facts answer, in this order; they are of one entity."""
    first, second = question(one, words), question(two, words)
    if not second.startswith((capitalised(two.entity.name), capitalised(two.entity.short))):
        second = second[0].lower() + second[1:]
    return f"{first.removesuffix('?')}, and {second}"


_SUBORDINATE = """according after although as because before born completed dial enter except for having if loaded made
since type until when with"""
_OPENERS = tuple(f"{opener} " for opener in _SUBORDINATE.split())
"""A clause that begins so follows no frame and no conjunction."""
_PERSONAL = re.compile(r"\{[EOP]\}|\{N's\}|\{N\}")
"""The first of these names the entity, later ones of the same sentence may be pronouns."""


class _Writer:
    """Writes sentences one after the other and knows whom the last one was about."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self.named: set[Entity] = set()
        self.last: Fact | None = None

    def _reference(self, fact: Fact, template: str) -> tuple[str, str, str, str]:
        """(as subject, as object, as possessive, name) for this mention."""
        entity, random = fact.entity, self.words.random
        blocking = PERSON_KINDS if entity.subject != "it" else THING_KINDS
        follows = (
            self.last is not None and self.last.entity == entity and self.last.attribute.kind not in blocking
        )
        if follows and "{N" not in template and random.random() < 0.65:
            return entity.subject, entity.object, entity.possessive, entity.name
        name = entity.short if entity in self.named and random.random() < 0.4 else entity.name
        return name, name, possessive(name), name

    def clause(self, fact: Fact) -> tuple[str, bool]:
        """The statement without its full stop, and whether it may begin a sentence.

        Its first letter is small unless it is a name or value. It may not begin a sentence where a capital letter would
        change a value.
        """
        attribute = fact.attribute
        template = phrasing(self.words, attribute.statements, attribute.heldout_statements).removesuffix(".")
        subject, object_, possessive_, name = self._reference(fact, template)
        if not template.startswith("{"):
            template = template[0].lower() + template[1:]
        first = not (template.startswith("{v}") and fact.value[0].islower())
        slots = {"{E}": subject, "{O}": object_, "{P}": possessive_, "{N's}": possessive(name), "{N}": name}
        template = _PERSONAL.sub(lambda slot: slots[slot[0]], template, count=1)
        slots |= {"{E}": fact.entity.subject, "{O}": fact.entity.object, "{P}": fact.entity.possessive}
        slots |= {"{av}": article(fact.value), "{Av}": article(fact.value), "{v}": fact.value}
        for slot, text in slots.items():
            template = template.replace(slot, text)
        self.named.add(fact.entity)
        self.last = fact
        return template, first

    def sentence(self, fact: Fact) -> str:
        text, first = self.clause(fact)
        if not first or (self.words.random.random() < 0.15 and not text.startswith(_OPENERS)):
            text = f"{frame(self.words)} {text}"
        return capitalised(text) + "."

    def pair(self, one: Fact, two: Fact) -> str:
        before = self.sentence(one).removesuffix(".")
        joint = self.words.random.choice(
            (", and", ";", ", while", "; besides,", ", and it is also known that")
        )
        after = self.clause(two)[0]
        return f"{before}{';' if after.startswith(_OPENERS) else joint} {after}."


def _sentences(facts: list[Fact], others: list[str], words: Words) -> list[str]:
    """Facts and the `others`, shuffled; mostly one entity after the other."""
    random = words.random
    order: list[Fact | str] = [*facts, *others]
    random.shuffle(order)
    if random.random() < 0.6:
        shuffled = [item for item in order if isinstance(item, Fact)]
        entities = list(dict.fromkeys(fact.entity for fact in shuffled))
        grouped = iter(sorted(shuffled, key=lambda fact: entities.index(fact.entity)))
        order = [next(grouped) if isinstance(item, Fact) else item for item in order]
    writer, sentences, index = _Writer(words), list[str](), 0
    while index < len(order):
        item, following = order[index], order[index + 1] if index + 1 < len(order) else None
        index += 1
        if isinstance(item, str):
            writer.last = None
            sentences.append(item)
        elif isinstance(following, Fact) and random.random() < 0.15:
            sentences.append(writer.pair(item, following))
            index += 1
        else:
            sentences.append(writer.sentence(item))
    return sentences


def _card(facts: list[Fact], others: list[str], words: Words, bullet: str) -> str:
    """Key: value lines under the name of each entity."""
    lines, separator = [], words.random.choice((": ", " - ", ": "))
    for entity in dict.fromkeys(fact.entity for fact in facts):
        title = capitalised(entity.name)
        lines.append(
            words.random.choice((title, f"{title}:", f"Name{separator}{title}"))
            if not bullet
            else f"{title}:"
        )
        lines += [
            f"{bullet}{fact.attribute.key}{separator}{fact.value}" for fact in facts if fact.entity == entity
        ]
    lines += [f"Note: {sentence}" for sentence in others]
    return "\n".join(lines)


def _letter(sentences: list[str], words: Words) -> str:
    choice = words.random.choice
    greeting = choice(("Dear all,", "Dear colleagues,", "Hello everyone,", "Good morning,", "Dear team,"))
    closing = choice(("Best wishes", "Kind regards", "Yours sincerely", "See you soon", "Many thanks"))
    return f"{greeting}\n{' '.join(sentences)}\n{closing}"


def _dialogue(sentences: list[str], words: Words) -> str:
    one, two = words.random.choice(
        (("A", "B"), ("Visitor", "Clerk"), ("Guest", "Porter"), ("Caller", "Operator"))
    )
    asks = words.random.choice(
        ("Can you tell me more?", "What do you know about it?", "Is there any news?", "Well?")
    )
    middle = max(1, len(sentences) // 2)
    turns = [f"{one}: {asks}", f"{two}: {' '.join(sentences[:middle])}"]
    if sentences[middle:]:
        turns += [f"{one}: {words.random.choice(('I see. And?', 'Go on.', 'Anything else?'))}"]
        turns += [f"{two}: {' '.join(sentences[middle:])}"]
    return "\n".join(turns)


def document(facts: list[Fact], neutral: int, words: Words) -> str:
    """The text of a document that states `facts` among `neutral` sentences that state nothing."""
    shape, others = words.random.random(), fillers(words, neutral)
    if shape < 0.08:
        return _card(facts, others, words, "")
    if shape < 0.12:
        return _card(facts, others, words, words.random.choice(("- ", "* ", "  ")))
    sentences = _sentences(facts, others, words)
    if shape < 0.17:
        return "\n".join(f"- {sentence}" for sentence in sentences)
    if shape < 0.21:
        return _letter(sentences, words)
    return _dialogue(sentences, words) if shape < 0.25 else " ".join(sentences)
