"""`[export.redact]`: patterns that are taken out of documents by name, each match replaced by "[name]".

Where a document is stored, so that store, search, passages and Sharer all have the text without it. A text that has a
match and was stored otherwise is refused when it is asked about. A pattern is run with a time limit, whatever it is.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import regex

from kvwire.errors import ExportDenied

_ROUNDS: Final = 16
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

    def __bool__(self) -> bool:
        return bool(self.patterns or self.custom)

    def __post_init__(self) -> None:
        for name, pattern in self.custom.items():
            if not _NAME.fullmatch(name) or name in _KNOWN:
                raise ValueError(f"custom: {name!r} is no name for a pattern of one's own")
            try:
                compiled = regex.compile(pattern)
            except regex.error as error:
                raise ValueError(f"custom.{name}: {error}") from None
            if compiled.search("", timeout=_SECONDS):
                raise ValueError(f"custom.{name} matches nothing at all, everywhere")
            for other in (*self.patterns, *self.custom):
                if compiled.search(f"[{other}]", timeout=_SECONDS):
                    raise ValueError(
                        f"custom.{name} matches [{other}], which stands where something was taken out"
                    )


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
    least = 7 if found[0] == "+" else 8  # with a 0 before it, shorter ones are parts and versions
    return least <= sum(c.isdigit() for c in found) <= 15 and found[:3] != "000"


def _ip(found: str) -> bool:
    try:
        ipaddress.ip_address(found)
    except ValueError:
        return False
    return any(c.isdigit() for c in found)  # a::b is a name in some languages


_DATE: Final = (
    r"\(?(?:0?[1-9]|[12][0-9]|3[01])([./-])(?:0?[1-9]|[12][0-9]|3[01])\1(?:19|20)[0-9]{2}(?![./-]?[0-9])"
)
_IP4: Final = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
_KNOWN: Final[Mapping[str, tuple[str, Callable[[str], bool]]]] = {
    "iban": (r"\b[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?\b", _iban),
    "card": (
        r"(?<![0-9])(?:[2-6][0-9]{3}(?:[ -]?[0-9]{4}){2}(?:[ -]?[0-9]{1,4}){1,2}"
        r"|3[0-9]{3}[ -]?[0-9]{6}[ -]?[0-9]{4,5})(?![0-9])",
        _luhn,
    ),
    "email": (
        r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}(?:xn--[\w-]{2,59}|\p{L}{2,24})(?!\w)",
        bool,
    ),
    "ip": (
        rf"(?<![\w.:])[0-9A-Fa-f]{{0,4}}(?::[0-9A-Fa-f]{{0,4}}){{2,7}}(?:(?<=:){_IP4})?(?![\w:]|\.[0-9])"
        rf"|(?<![\w.]){_IP4}(?!\w|\.[0-9])",
        _ip,
    ),
    # By what it begins with, or in the form of North America or of a Chinese mobile; else a date or an amount would be
    # one. A date may begin with 0 too.
    "phone": (
        rf"(?<![\w+,-]|[0-9][./])(?!{_DATE})"
        r"(?=[+0]|\(0|\([0-9]{3}\) ?[0-9]{3}[ .-][0-9]{4}|[2-9][0-9]{2}[ .-][2-9][0-9]{2}[ .-][0-9]{4}"
        r"|1[3-9][0-9][ -][0-9]{4}[ -][0-9]{4})"
        r"[+(]?[0-9](?:[ ()./–-]{0,3}[0-9]){6,17}(?: ?(?:x|ext\.?) ?[0-9]{1,5})?(?!\w|-\w|[.,][0-9])",
        _phone,
    ),
}
"""In the order in which they are run: what a longer one has taken out, a shorter one does not find."""


def redacted(told: Redaction, tenant: str, text: str) -> tuple[str, Counter[str]]:
    """A tenant's text without what the patterns match, and how often each did.

    Raises:
        RedactionFailed: a pattern took too long; names it. Or there is always something more to take out.
    """
    counts: Counter[str] = Counter()
    if told.tenants and tenant not in told.tenants:
        return text, counts
    for _ in range(_ROUNDS):
        # What is taken out may have hidden what stood beside it.
        text, more = _once(told, text)
        if not more:
            return text, counts
        counts += more
    raise RedactionFailed(f"redact: after {_ROUNDS} rounds there is still more to take out of this text")


def _once(told: Redaction, text: str) -> tuple[str, Counter[str]]:
    counts: Counter[str] = Counter()
    known = [(name, *_KNOWN[name]) for name in _KNOWN if name in told.patterns]
    for name, pattern, holds in (*known, *((name, pattern, bool) for name, pattern in told.custom.items())):
        # A pattern of one's own is about the text as it is.
        looked = text if text.isascii() or name in told.custom else text.translate(_PLAIN)
        try:
            spans = list(_spans(regex.compile(pattern), holds, looked))
        except TimeoutError:
            raise RedactionFailed(
                f"redact: the pattern {name} takes more than {_SECONDS:g} s on this text"
            ) from None
        if spans:
            counts[name] = len(spans)
            kept = zip([0, *(ends for _, ends in spans)], [begins for begins, _ in spans], strict=False)
            text = "".join(f"{text[begins:ends]}[{name}]" for begins, ends in kept) + text[spans[-1][1] :]
    return text, counts


class _Plain(dict[int, int]):
    """Digits, spaces, hyphens and signs of other shapes as those of ASCII, each one character."""

    def __missing__(self, code: int) -> int:
        plain = unicodedata.normalize("NFKC", chr(code))
        plain = str(unicodedata.decimal(chr(code), plain))
        self[code] = ord(plain) if len(plain) == 1 else code
        return self[code]


_PLAIN: Final = _Plain(dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2212"), ord("-")))


def _spans(pattern: Any, holds: Callable[[str], bool], text: str) -> Iterator[tuple[int, int]]:
    """What matches and holds. Raises TimeoutError.

    A match may have taken in words beside it: its shorter beginnings are tried too, and what begins at a later word.
    """
    until, at = time.monotonic() + _SECONDS, 0
    while match := pattern.search(text, at, timeout=max(1e-3, until - time.monotonic())):
        begins, found = match.start(), match[0]
        ends = [len(found), *(gap.start() for gap in regex.finditer(" ", found))]
        for end in (ends[0], *reversed(ends[1:])):
            if holds(found[:end]) and (end == len(found) or pattern.fullmatch(found[:end])):
                yield begins, begins + end
                at = max(begins + end, begins + 1)
                break
        else:
            at = begins + regex.search("[ :]", found + " ").end()
        if time.monotonic() > until:
            raise TimeoutError


def is_redacted(told: Redaction, tenant: str, text: str) -> bool:
    """Whether `[export.redact]` finds nothing in a text; not, where it takes too long to look."""
    try:
        return not redacted(told, tenant, text)[1]
    except RedactionFailed:
        return False


class LookedThrough:
    """Texts in which nothing was found before, so that a question does not cost a look at all of its documents."""

    def __init__(self) -> None:
        self._clean: set[bytes] = set()

    def clean(self, told: Redaction, tenant: str, text: str) -> bool:
        """`is_redacted`, once a text that is."""
        if not told:
            return True
        key = hashlib.blake2b(f"{told}{tenant}\0{text}".encode(), digest_size=16).digest()
        if key not in self._clean:
            if not is_redacted(told, tenant, text):
                return False
            if len(self._clean) >= _REMEMBERED:
                self._clean.clear()
            self._clean.add(key)
        return True

    def check(self, told: Redaction, tenant: str, text: str) -> None:
        """A text in which `[export.redact]` still finds something is not read: it was stored without that.

        Raises:
            ExportDenied: there is a match, or it takes too long to look.
        """
        if not self.clean(told, tenant, text):
            raise ExportDenied("a document that was stored before [export.redact] was so")
