"""`[export.redact]`: patterns that are taken out of documents by name, each match replaced by "[name]".

Where a document is stored, so that store, search, passages and Sharer all have the text without it. A text that has a
match and was stored otherwise is refused when it is asked about. A pattern is run with a time limit, whatever it is.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import regex

from kvwire.errors import ExportDenied

_SECONDS: Final = 5.0
"""How long one pattern may run over one text."""
_REMEMBERED: Final = 65_536
_NAME: Final = regex.compile(r"[a-z][a-z0-9-]{0,31}")


@dataclass(frozen=True, slots=True)
class Redaction:
    """`[export.redact]`: what is taken out of documents where they are stored.

    patterns: of the known ones. custom: further ones by a name of their own, as regular expressions of the package
        `regex`. tenants: whose documents; none named is everybody's.
    """

    patterns: tuple[Literal["email", "phone", "iban", "card", "ip"], ...] = ()
    custom: Mapping[str, str] = field(default_factory=dict)
    tenants: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_patterns(self.patterns, self.custom)


class RedactionFailed(ValueError):
    """A text could not be gone over; nothing of it is said."""


def _luhn(found: str) -> bool:
    digits = [int(c) for c in found if c.isdigit()]
    doubled = (sum(divmod(2 * d, 10)) if place % 2 else d for place, d in enumerate(reversed(digits)))
    return len(set(digits)) > 1 and sum(doubled) % 10 == 0


def _iban(found: str) -> bool:
    bare = "".join(c for c in found if c.isalnum())
    return 15 <= len(bare) <= 34 and int("".join(str(int(c, 36)) for c in bare[4:] + bare[:4])) % 97 == 1


def _phone(found: str) -> bool:
    """By what it begins with, or in the form of North America; else a date or an amount would be one."""
    digits = sum(c.isdigit() for c in found)
    american = regex.fullmatch(r"\(?[2-9][0-9]{2}\)?[ .-]{1,2}[2-9][0-9]{2}[ .-][0-9]{4}", found)
    return 7 <= digits <= 15 and (found[0] in "+0" or found[:2] == "(0" or american is not None)


def _ip(found: str) -> bool:
    try:
        ipaddress.ip_address(found)
    except ValueError:
        return False
    return any(c.isdigit() for c in found)  # a::b is a name in some languages


_KNOWN: Final[Mapping[str, tuple[str, Callable[[str], bool]]]] = {
    "iban": (r"\b[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?\b", _iban),
    "card": (r"(?<![0-9])[0-9](?:[ -]?[0-9]){12,18}(?![0-9])", _luhn),
    "email": (r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}\p{L}{2,24}(?![\w-])", bool),
    "ip": (
        r"(?<![\w.:])(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:]|\.[0-9])",
        _ip,
    ),
    "phone": (r"(?<![\w+.,-])[+(]?[0-9](?:[ ()./-]{0,3}[0-9]){6,17}(?![\w-]|[.,][0-9])", _phone),
}
"""In the order in which they are run: what a longer one has taken out, a shorter one does not find."""


def check_patterns(patterns: Collection[str], custom: Mapping[str, str]) -> None:
    """Refuse custom patterns that cannot be used; `patterns` are the known ones beside them.

    Raises:
        ValueError: names the pattern.
    """
    for name, pattern in custom.items():
        if not _NAME.fullmatch(name) or name in _KNOWN:
            raise ValueError(f"custom: {name!r} is no name for a pattern of one's own")
        try:
            compiled = regex.compile(pattern)
        except regex.error as error:
            raise ValueError(f"custom.{name}: {error}") from None
        if compiled.search("", timeout=_SECONDS):
            raise ValueError(f"custom.{name} matches nothing at all, everywhere")
        for other in (*patterns, *custom):
            if compiled.search(f"[{other}]", timeout=_SECONDS):
                raise ValueError(
                    f"custom.{name} matches [{other}], which stands where something was taken out"
                )


def redacted(told: Redaction, tenant: str, text: str) -> tuple[str, Counter[str]]:
    """A tenant's text without what the patterns match, and how often each did.

    Raises:
        RedactionFailed: a pattern took too long; names it.
    """
    counts: Counter[str] = Counter()
    if told.tenants and tenant not in told.tenants:
        return text, counts
    known = [(name, *_KNOWN[name]) for name in _KNOWN if name in told.patterns]
    for name, pattern, holds in (*known, *((name, pattern, bool) for name, pattern in told.custom.items())):

        def replaced(match: Any, name: str = name, holds: Callable[[str], bool] = holds) -> str:
            if not holds(match[0]):
                return str(match[0])
            counts[name] += 1
            return f"[{name}]"

        try:
            text = regex.sub(pattern, replaced, text, timeout=_SECONDS)
        except TimeoutError:
            raise RedactionFailed(
                f"redact: the pattern {name} takes more than {_SECONDS:g} s on this text"
            ) from None
    return text, counts


class LookedThrough:
    """Texts in which nothing was found before, so that a question does not cost a look at all of its documents."""

    def __init__(self) -> None:
        self._clean: set[bytes] = set()

    def check(self, told: Redaction, tenant: str, text: str) -> None:
        """`check_redacted`, once a text.

        Raises:
            ExportDenied: as there.
        """
        if not (told.patterns or told.custom):
            return
        key = hashlib.blake2b(f"{told}{tenant}\0{text}".encode(), digest_size=16).digest()
        if key in self._clean:
            return
        check_redacted(told, tenant, text)
        if len(self._clean) >= _REMEMBERED:
            self._clean.clear()
        self._clean.add(key)


def check_redacted(told: Redaction, tenant: str, text: str) -> None:
    """A text in which `[export.redact]` still finds something is not read: it was stored without that.

    Raises:
        ExportDenied: there is a match, or it takes too long to look.
    """
    if not (told.patterns or told.custom):
        return
    try:
        found = bool(redacted(told, tenant, text)[1])
    except RedactionFailed:
        raise ExportDenied("a document that [export.redact] takes too long to look through") from None
    if found:
        raise ExportDenied("a document that was stored before [export.redact] was so")
