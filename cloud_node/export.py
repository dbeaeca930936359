"""The export policy: what may leave of documents, for every kind of slice and for relayed text, decided here alone.

Of several documents, or passages of them, the least cap holds for the whole slice: so no document has more positions in
it than its own cap, and the header is enough to check that.

The gateway asks before anything is read, a replica again of the documents as it read them, and the gateway holds the
header against it before the first byte is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cloud_node.config import ExportPolicy
from cloud_node.document_reader import Document, DocumentInfo
from cloud_node.exposure import Budget, Leaving
from kvwire.errors import Busy, ExportDenied, InternalError, RelayDisabled
from kvwire.messages import RelayReply, RelayRequest, ShareRequest
from kvwire.plan import Plan
from kvwire.segment import SliceHeader, SliceKind

Guarded = Document | DocumentInfo
"""A document as the policy sees it: by the limits of its own."""


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
    if not documents and kind is not SliceKind.EXCERPT:
        return None
    # What the Sharer holds at shared positions after it has read a document tells what the document says.
    over = "" if kind is SliceKind.EXCERPT else " over documents"
    return _allowed(policy.granted.most(kind), documents, f"{kind} slices{over}")


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
    return tuple(kind for kind in policy.kinds if policy.granted.most(kind))


def budget_of(policy: ExportPolicy, document: DocumentInfo) -> Budget:
    """What may leave of a document for one identity in a day: the policy's numbers, or lower ones of its own."""
    positions = least(policy.positions_per_day or None, document.positions_per_day or None)
    questions = least(policy.questions_per_day or None, document.questions_per_day or None)
    new = least(policy.new_positions_per_day or None, document.new_positions_per_day or None)
    return Budget(positions or 0, questions or 0, new or 0)


def leaving(
    policy: ExportPolicy,
    documents: Iterable[DocumentInfo],
    positions: int,
    quoted: Sequence[tuple[str, int, int]] = (),
) -> list[Leaving]:
    """What a call takes of each document.

    A position that was chosen in a document counts for that one alone; any other may tell of each, and counts for each.

    Args:
        documents: that it is over, some perhaps twice. quoted: as `Quoting` has it.
    """
    own = {document: list[tuple[int, int]]() for document in documents}
    of = {document.id: spans for document, spans in own.items()}
    for document_id, begins, ends in quoted:
        of[document_id].append((begins, ends))
    others = positions - len(quoted)
    return [
        Leaving(d.id, budget_of(policy, d), others + len(spans), tuple(spans), d.version)
        for d, spans in own.items()
    ]


def leaving_nothing(policy: ExportPolicy) -> Leaving:
    """What a search takes that finds nothing, which tells as much of all documents: a question of none of them."""
    return Leaving("", Budget(questions=policy.questions_per_day), 0)


def versions_of(documents: Iterable[DocumentInfo]) -> tuple[str, ...]:
    """Of each document once, in the order in which they are named first; some may be named twice."""
    return tuple(document.version for document in dict.fromkeys(documents))


def check_read(versions: Sequence[str], documents: Iterable[DocumentInfo]) -> None:
    """What was read are the texts whose caps have been looked at.

    Args:
        versions: of each document that was read. documents: as they are now, some perhaps twice.

    Raises:
        Busy: one has another text now.
    """
    if tuple(versions) != versions_of(documents):
        raise Busy


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
