"""The one notation of layouts, questions and values.

{name}      a field of the document, else a value by that name (`fuser.lab.data.notes.values`)
<a|b|c>     one of these; of a value, the same one in all of a document, and <=key|a|b|c> the one as far on in all
            choices of the key
{{ and }}   braces
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

_PART = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|<([^<>\n]*\|[^<>\n]*)>")


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands for a field or a value."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """Stands for one of its options; `text` has them as they were written. Those of one `key` go together."""

    options: tuple[Template, ...]
    text: tuple[str, ...]
    key: str = ""


Template = tuple[str | Slot | Choice, ...]


def parse(text: str) -> Template:
    parts: list[str | Slot | Choice] = []
    at = 0
    for found in _PART.finditer(text):
        parts.append(text[at : found.start()])
        at = found.end()
        if found[1]:
            parts.append(Slot(found[1]))
        elif found[2]:
            options = tuple(found[2].split("|"))
            key = options[0][1:] if options[0].startswith("=") else ""
            options = options[1:] if key else options
            parts.append(Choice(tuple(map(parse, options)), options, key))
        else:
            parts.append(found[0][0])
    parts.append(text[at:])
    return tuple(part for part in parts if part != "")


def slots(template: Template) -> Iterator[str]:
    """The names of all slots, those of every option too."""
    for part in template:
        if isinstance(part, Slot):
            yield part.name
        elif isinstance(part, Choice):
            for option in part.options:
                yield from slots(option)


def choices(template: Template) -> Iterator[Choice]:
    """All choices but those inside another one, of which there are none."""
    return (part for part in template if isinstance(part, Choice))


def by_hash(options: tuple[str, ...]) -> list[str]:
    """The options in an order that is the same everywhere and means nothing."""
    return sorted(options, key=lambda option: sha256(option.encode()).digest())
