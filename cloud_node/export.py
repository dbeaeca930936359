"""The export policy: what may leave of documents, for every kind of slice and for relayed text, decided here alone.

The gateway asks before anything is read, a replica again of the documents as it read them, and the gateway holds the
header against it before the first byte is written.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloud_node.config import ExportPolicy
from cloud_node.documents import Document, DocumentInfo
from kvwire.errors import ExportDenied, InternalError, RelayDisabled
from kvwire.messages import RelayReply, RelayRequest, ShareRequest
from kvwire.segment import SliceHeader, SliceKind


def positions_allowed(policy: ExportPolicy, kind: SliceKind, caps: Iterable[int | None]) -> int | None:
    """The most positions that a slice may have; None where only the limits of the wire count.

    Args:
        caps: for each document of the prompt its own cap; None leaves it to the policy.

    Raises:
        ExportDenied: none may leave.
    """
    if kind not in policy.kinds:
        raise ExportDenied(f"{kind} slices")
    caps = list(caps)
    if kind is not SliceKind.SHARED:
        return _allowed(policy.max_positions, caps, f"{kind} slices")
    # What the Sharer holds at shared positions after it has read a document tells what the document says.
    return _allowed(policy.shared_over_documents, caps, "shared slices over documents") if caps else None


def tokens_allowed(policy: ExportPolicy, caps: Iterable[int | None]) -> int | None:
    """The most tokens of relayed text: a token said counts as a position sent. None: as many as asked for.

    Raises:
        RelayDisabled: the policy relays no text.
        ExportDenied: none about these documents.
    """
    if not policy.allow_relay:
        raise RelayDisabled
    caps = list(caps)
    return _allowed(policy.max_positions, caps, "relayed text about documents") if caps else None


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


def caps_of(documents: Iterable[DocumentInfo | Document]) -> list[int | None]:
    """The cap of each document of a prompt."""
    return [document.max_positions for document in documents]


def least(*bounds: int | None) -> int | None:
    """The lowest of some bounds, where None is none."""
    return min((bound for bound in bounds if bound is not None), default=None)


def _allowed(policy: int, caps: list[int | None], what: str) -> int:
    most = least(policy, *caps)
    if not most:
        raise ExportDenied(what)
    return most
