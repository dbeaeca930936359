"""The attributes: what can be stated and asked about an entity.

`phrasings.txt` has blocks `# domain | name | key | kind`, then statements, then questions (`? ...`). Slots: `{E}` the
entity as subject, `{O}` as object, `{P}` its possessive - all three may become pronouns; `{N}`, `{N's}` always the
name; `{v}` the value, `{av}` the value after a or an.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fuser.lab.data.records.words import CLOSED

HELDOUT_ATTRIBUTES = frozenset(
    {
        ("person", "allergy"),
        ("person", "telephone extension"),
        ("person", "mentor"),
        ("patient", "physician"),
        ("object", "material"),
        ("object", "weight"),
        ("company", "auditor"),
        ("project", "server name"),
        ("trip", "hotel"),
        ("event", "speaker"),
        ("building", "architect"),
        ("ship", "cargo"),
        ("restaurant", "opening time"),
    }
)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute. The two tuples `heldout_*` hold the phrasings that split `train` never uses."""

    domain: str
    name: str
    key: str
    kind: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    heldout_statements: tuple[str, ...]
    heldout_questions: tuple[str, ...]

    @property
    def heldout(self) -> bool:
        """Whether the whole attribute is kept out of `train`."""
        return (self.domain, self.name) in HELDOUT_ATTRIBUTES

    @property
    def closed(self) -> bool:
        """Whether its values are too few to hold any out."""
        return self.kind in CLOSED


def _divide(phrasings: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Phrasings for every split, and the one with the smallest hash, which is held out."""
    last = min(phrasings, key=lambda text: hashlib.sha256(text.encode()).digest())
    return tuple(text for text in phrasings if text != last), (last,)


def _parse(table: str) -> list[Attribute]:
    attributes = []
    for block in table.strip().removeprefix("# ").split("\n# "):
        head, *lines = block.strip().split("\n")
        domain, name, key, kind = (part.strip() for part in head.split("|"))
        statements, heldout_statements = _divide([line for line in lines if not line.startswith("? ")])
        questions, heldout_questions = _divide([line[2:] for line in lines if line.startswith("? ")])
        attributes.append(
            Attribute(domain, name, key, kind, statements, questions, heldout_statements, heldout_questions)
        )
    return attributes


ATTRIBUTES: tuple[Attribute, ...] = tuple(
    _parse(Path(__file__).with_name("phrasings.txt").read_text(encoding="utf-8"))
)
BY_DOMAIN: dict[str, tuple[Attribute, ...]] = {
    domain: tuple(attribute for attribute in ATTRIBUTES if attribute.domain == domain)
    for domain in dict.fromkeys(attribute.domain for attribute in ATTRIBUTES)
}
