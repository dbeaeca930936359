"""The export policy: what may leave of documents, for every kind of slice and for relayed text, decided here alone.

Of several documents, or passages of them, the least cap holds for the whole slice: so no document has more positions in
it than its own cap, and the header is enough to check that.

The gateway asks before anything is read, a replica again of the documents as it read them, and the gateway holds the
header against it before the first byte is written.

`[export.redact]` takes patterns out of documents by name, each match replaced by "[name]": where a document is stored,
so that store, search, passages and Sharer all have the text without it. A text that has a match and was stored
otherwise is refused when it is asked about. A pattern is run with a time limit, whatever it is.
"""

from __future__ import annotations

import ipaddress
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import regex

from cloud_node.call import Quoting
from cloud_node.config import ExportPolicy, Redaction
from cloud_node.documents import DocumentInfo
from cloud_node.exposure import Budget, Leaving
from kvwire.errors import ExportDenied, InternalError, RelayDisabled
from kvwire.messages import RelayReply, RelayRequest, ShareRequest
from kvwire.plan import Plan
from kvwire.segment import SliceHeader, SliceKind

_SECONDS: Final = 5.0
"""How long one pattern may run over one text."""
_ROUNDS: Final = 16
_NAME: Final = regex.compile(r"[a-z][a-z0-9-]{0,31}")


class Guarded(Protocol):
    """A document as the policy sees it.

    max_positions: the most positions of one slice; None leaves it to the policy. kinds: of slice that it may be in;
    None leaves it to the policy.
    """

    @property
    def max_positions(self) -> int | None: ...
    @property
    def kinds(self) -> tuple[SliceKind, ...] | None: ...


def positions_allowed(
    policy: ExportPolicy, kind: SliceKind, plan: Plan, documents: Sequence[Guarded]
) -> int | None:
    """The most positions that a slice may have; None where only the limits of the wire count.

    Args:
        documents: of the prompt.

    Raises:
        ExportDenied: none may leave.
    """
    # A draft that quotes is an excerpt too.
    for wanted in (kind, *([SliceKind.EXCERPT] if plan.quoted else [])):
        if wanted not in policy.kinds:
            raise ExportDenied(f"{wanted} slices")
        if any(d.kinds is not None and wanted not in d.kinds for d in documents):
            raise ExportDenied(f"{wanted} slices of this document")
    if policy.max_runs < plan.runs:
        raise ExportDenied(f"slices of more than {policy.max_runs} runs")
    if policy.max_quoted < plan.quoted:
        raise ExportDenied(f"drafts that quote more than {policy.max_quoted} positions")
    if kind is SliceKind.EXCERPT:
        return _allowed(min(policy.max_positions, policy.max_quoted), documents, "excerpt slices")
    if not documents:
        return None
    # What the Sharer holds at shared positions after it has read a document tells what the document says.
    most = policy.shared_over_documents if kind is SliceKind.SHARED else policy.max_positions
    return _allowed(most, documents, f"{kind} slices over documents")


def tokens_allowed(policy: ExportPolicy, documents: Sequence[Guarded]) -> int | None:
    """The most tokens of relayed text: a token said counts as a position sent. None: as many as asked for.

    Raises:
        RelayDisabled: the policy relays no text.
        ExportDenied: none about these documents.
    """
    if not policy.allow_relay:
        raise RelayDisabled
    # It says what a draft says, and more plainly.
    if documents and SliceKind.DRAFT not in policy.kinds:
        raise ExportDenied("relayed text about documents")
    if any(d.kinds is not None and SliceKind.DRAFT not in d.kinds for d in documents):
        raise ExportDenied("relayed text about this document")
    return _allowed(policy.max_positions, documents, "relayed text about documents") if documents else None


def kinds_searched(policy: ExportPolicy) -> tuple[SliceKind, ...]:
    """The kinds of slice that may leave of documents: one of which none of these may is not found.

    Raises:
        ExportDenied: the policy lets nobody search.
    """
    if not policy.allow_search:
        raise ExportDenied("where a question's words stand")
    most = {
        SliceKind.SHARED: policy.shared_over_documents,
        SliceKind.EXCERPT: min(policy.max_positions, policy.max_quoted),
        SliceKind.DRAFT: policy.max_positions,
    }
    return tuple(kind for kind in policy.kinds if most[kind])


def budget_of(policy: ExportPolicy, document: DocumentInfo) -> Budget:
    """What may leave of a document for one identity in a day: the policy's numbers, or lower ones of its own."""
    positions = least(policy.positions_per_day or None, document.positions_per_day or None)
    questions = least(policy.questions_per_day or None, document.questions_per_day or None)
    return Budget(positions or 0, questions or 0)


def leaving(
    policy: ExportPolicy, wanted: ShareRequest, documents: Sequence[DocumentInfo], header: SliceHeader
) -> list[Leaving]:
    """What a slice takes of each document.

    A position that was chosen in a document counts for that one alone; a shared one, or one of a draft, may tell of
    any, and counts for each.

    Args:
        documents: one for each section that names one.
    """
    quoted = header.quoted if isinstance(header, Quoting) else ()
    spans: dict[str, list[tuple[int, int]]] = {document.id: [] for document in documents}
    asked = [place for place, section in enumerate(wanted.sections) if section.document_id is not None]
    of_section = dict(zip(asked, documents, strict=True))
    for section, begins, ends in quoted:
        spans[of_section[section].id].append((begins, ends))
    others = header.positions - len(quoted)
    return [
        Leaving(d.id, budget_of(policy, d), others + len(spans[d.id]), tuple(spans[d.id]))
        for d in dict.fromkeys(documents)
    ]


def leaving_alike(policy: ExportPolicy, documents: Iterable[DocumentInfo], positions: int) -> list[Leaving]:
    """What a call takes of documents where all that leaves may tell of any of them."""
    return [Leaving(d.id, budget_of(policy, d), positions) for d in dict.fromkeys(documents)]


def check_leaving(header: SliceHeader, request: ShareRequest, allowed: int | None) -> None:
    """The last look before the first byte: whatever a replica did, this header may leave.

    Raises:
        ExportDenied: it has more positions than allowed.
        InternalError: it is not the header of this request.
    """
    if header.request_digest != request.digest() or header.kind is not request.kind:
        raise InternalError("a replica answered another request")
    if allowed is not None and header.positions > allowed:
        raise ExportDenied(f"more than {allowed} positions")


def is_redacted(policy: ExportPolicy, tenant: str, text: str) -> bool:
    """Whether `[export.redact]` finds nothing in a text; not, where it takes too long to look."""
    if not policy.redact:
        return True
    try:
        return not redacted(policy.redact, tenant, text)[1]
    except RedactionFailed:
        return False


def check_redacted(policy: ExportPolicy, tenant: str, text: str) -> None:
    """A text in which `[export.redact]` still finds something is not read: it was stored without that.

    Raises:
        ExportDenied: there is a match, or it takes too long to look.
    """
    if not is_redacted(policy, tenant, text):
        raise ExportDenied("a document that was stored before [export.redact] was so")


def check_relayed(reply: RelayReply, request: RelayRequest, allowed: int | None) -> None:
    """The same for a relayed text.

    Raises:
        ExportDenied: it has more tokens than allowed.
        InternalError: it is not the answer to this request, or longer than asked for.
    """
    if reply.request_id != request.request_id or reply.tokens > request.max_new_tokens:
        raise InternalError("a replica answered another request")
    if allowed is not None and reply.tokens > allowed:
        raise ExportDenied(f"more than {allowed} tokens")


def least(*bounds: int | None) -> int | None:
    """The lowest of some bounds, where None is none."""
    return min((bound for bound in bounds if bound is not None), default=None)


def _allowed(policy: int, documents: Iterable[Guarded], what: str) -> int:
    most = least(policy, *(document.max_positions for document in documents))
    if not most:
        raise ExportDenied(what)
    return most


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
    return 7 <= sum(c.isdigit() for c in found) <= 15 and found[:3] != "000"


def _ip(found: str) -> bool:
    try:
        ipaddress.ip_address(found)
    except ValueError:
        return False
    return any(c.isdigit() for c in found)  # a::b is a name in some languages


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
    # By what it begins with, or in the form of North America; else a date or an amount would be one.
    "phone": (
        r"(?<![\w+,-]|[0-9]\.)(?=[+0]|\(0|\(?[2-9][0-9]{2}\)?[ .-]{1,2}[2-9][0-9]{2}[ .-][0-9]{4})"
        r"[+(]?[0-9](?:[ ()./–-]{0,3}[0-9]){6,17}(?: ?(?:x|ext\.?) ?[0-9]{1,5})?(?!\w|-\w|[.,][0-9])",
        _phone,
    ),
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
