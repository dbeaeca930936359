"""Every error that crosses the wire: one tree, one catalogue.

    KvwireError
    |- WireError            bytes or messages of a peer that cannot be used
    |  |- BadHeader         a message with a missing, unknown or contradictory field
    |  |- TooLarge          a size over its limit
    |  |- BadChecksum       a frame or a slice that changed on the way
    |  |- Unsupported       a codec or an element type that is not known here
    |  `- BadPayload        bytes that do not decode to what the header says
    |- IncompatiblePeer     the handshake failed; both values are named
    |- NotFound             unknown document and someone else's document alike
    |  `- NoPassage         the document is there, and has no such passage
    |- AccessDenied
    |  `- ExportDenied     the export policy keeps it in
    |- InvalidRequest       |- MissingDeadline  |- RelayDisabled
    |- Busy                 |- Draining         |- Unreachable       |- ExposureSpent
    |- DeadlineExceeded     |- Cancelled        |- InternalError
    `- AuditUnavailable  `- DocumentsUnavailable

An error's `detail` stays where it was raised; a peer is told the catalogue's fixed text and `metadata()`.
`kvwire.status` translates to and from gRPC.
"""

from dataclasses import dataclass
from typing import Final


class KvwireError(Exception):
    """Root of the tree. `detail` is for the local log and is never sent."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return self.detail or self.public_text

    @property
    def public_text(self) -> str:
        """The catalogue's fixed text for this class."""
        return entry_of(type(self)).text

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed a moment later."""
        return entry_of(type(self)).retryable

    def metadata(self) -> dict[str, str]:
        """What is told to the peer besides the fixed text: names and numbers, never text of a section."""
        return {}


class WireError(KvwireError):
    """Bytes or messages of a peer that cannot be used."""


class BadHeader(WireError):
    """A message with a missing, unknown or contradictory field."""


class TooLarge(WireError):
    """A size over its limit.

    Args:
        what: the thing measured, a fixed name such as "question characters".
        size: as found.
        limit: as allowed.
    """

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(f"{what}: {size} is over the limit of {limit}")
        self.args = (what, size, limit)
        self.what, self.size, self.limit = what, size, limit

    def metadata(self) -> dict[str, str]:
        return {"what": self.what, "size": str(self.size), "limit": str(self.limit)}


class BadChecksum(WireError):
    """A frame or a slice that changed on the way; never fused."""


class Unsupported(WireError):
    """A codec or an element type that is not known here."""


class BadPayload(WireError):
    """Bytes that do not decode to what the header says; never fused."""


_ONE_PAIR: Final = (
    "at the edge name a bundle of the cloud's `[sharer] bundles` as `[receiver] bundle`, with its model, or have "
    "`kvwire init edge --bundle NAME` write a new edge.toml in another folder"
)
_MENDS: Final = {
    "Sharer": _ONE_PAIR,
    "bundle hash": _ONE_PAIR,
    "slice kind": "at the edge ask for another kind (`[share] kind`), or let the cloud's `[export]` allow this one",
    "protocol version": "install one version of kvwire on both sides",
}


class IncompatiblePeer(KvwireError):
    """The handshake failed.

    Args:
        field: what differs, a fixed name such as "bundle hash".
        cloud: the cloud's value, or values joined by ", ".
        edge: the edge's value.
    """

    def __init__(self, field: str, cloud: object, edge: object) -> None:
        cloud, edge = str(cloud)[:200], str(edge)[:200]
        then = f"; {_MENDS[field]}" if field in _MENDS else ""
        super().__init__(f"{field} differs: the cloud has {cloud!r}, the edge has {edge!r}{then}")
        self.args = (field, cloud, edge)
        self.field, self.cloud, self.edge = field, cloud, edge

    def metadata(self) -> dict[str, str]:
        return {"field": self.field, "cloud": self.cloud, "edge": self.edge}


class NotFound(KvwireError):
    """The document does not exist, or is not this caller's: the two look the same."""


class NoPassage(NotFound):
    """The text that the document has now has no passage of this number.

    Args:
        passage: its number.
    """

    def __init__(self, passage: int) -> None:
        super().__init__(f"the document has no passage {passage}")
        self.args = (passage,)
        self.passage = passage

    def metadata(self) -> dict[str, str]:
        return {"passage": str(self.passage)}


class AccessDenied(KvwireError):
    """The caller's identity may not do this."""


class TokenRefused(AccessDenied):
    """The token that was to name a user does not hold, or there is none where the cloud wants one."""


class ExportDenied(AccessDenied):
    """The cloud's export policy, or a document's own cap, lets nothing of this leave.

    Args:
        what: what may not leave, in fixed words such as "shared slices over documents".
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"this may not leave the cloud, by its export policy or a document's own cap: {what}"
        )
        self.args = (what,)
        self.what = what

    def metadata(self) -> dict[str, str]:
        return {"what": self.what}


class InvalidRequest(KvwireError):
    """The request contradicts itself or the service's rules."""


class MissingDeadline(KvwireError):
    """Every call carries a deadline."""


class Busy(KvwireError):
    """The cloud has no room now.

    Args:
        retry_after_s: seconds until a new try makes sense.
    """

    def __init__(self, retry_after_s: float = 1.0) -> None:
        super().__init__("")
        self.args = (retry_after_s,)
        self.retry_after_s = retry_after_s


class Draining(KvwireError):
    """This cloud node is going away; another may answer.

    Args:
        retry_after_s: seconds until a new try makes sense.
    """

    def __init__(self, retry_after_s: float = 1.0) -> None:
        super().__init__("")
        self.args = (retry_after_s,)
        self.retry_after_s = retry_after_s


class ExposureSpent(KvwireError):
    """As much of a document has left for this identity today as may.

    Args:
        retry_after_s: seconds until the next day, UTC.
    """

    def __init__(self, retry_after_s: float = 1.0) -> None:
        super().__init__("")
        self.args = (retry_after_s,)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(KvwireError):
    """The time ran out."""


class Cancelled(KvwireError):
    """The caller went away, so the work stopped."""


class Unreachable(KvwireError):
    """No connection to the cloud; raised at the edge only."""


class RelayDisabled(KvwireError):
    """The cloud's configuration does not let the Sharer's text out."""


class AuditUnavailable(KvwireError):
    """The cloud cannot write its audit log, and nothing leaves it unrecorded."""


class DocumentsUnavailable(KvwireError):
    """The cloud's database of documents does not answer, or refuses."""


class InternalError(KvwireError):
    """Something failed that is not the caller's doing."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalogue.

    Attributes:
        status: name of the gRPC status code.
        reason: `google.rpc.ErrorInfo.reason`, stable for ever.
        text: what the peer is told, fixed.
        retryable: whether the same request may succeed a moment later.
    """

    status: str
    reason: str
    text: str
    retryable: bool = False


CATALOGUE: Final[dict[type[KvwireError], Entry]] = {
    KvwireError: Entry("INTERNAL", "ERROR", "The service failed."),
    WireError: Entry("DATA_LOSS", "WIRE_ERROR", "The data that arrived cannot be used."),
    BadHeader: Entry(
        "INVALID_ARGUMENT", "BAD_HEADER", "A field of the message is missing, unknown or contradictory."
    ),
    TooLarge: Entry("INVALID_ARGUMENT", "TOO_LARGE", "A size is over its limit."),
    BadChecksum: Entry("DATA_LOSS", "BAD_CHECKSUM", "The data changed on the way."),
    Unsupported: Entry("INVALID_ARGUMENT", "UNSUPPORTED", "The codec or element type is not supported."),
    BadPayload: Entry("DATA_LOSS", "BAD_PAYLOAD", "The data does not decode to what its header says."),
    IncompatiblePeer: Entry("FAILED_PRECONDITION", "INCOMPATIBLE_PEER", "Cloud and edge do not match."),
    NotFound: Entry(
        "NOT_FOUND",
        "NOT_FOUND",
        "There is no such document, or it is not for this caller. `kvwire documents list` in the cloud shows the ids: "
        "a file report.txt has the id report.txt, unless --id gave another.",
    ),
    NoPassage: Entry("NOT_FOUND", "NO_PASSAGE", "The document has no such passage."),
    AccessDenied: Entry("PERMISSION_DENIED", "ACCESS_DENIED", "This identity may not make this call."),
    TokenRefused: Entry(
        "UNAUTHENTICATED", "TOKEN_REFUSED", "The user's token does not hold here: get a new one."
    ),
    ExportDenied: Entry(
        "PERMISSION_DENIED", "EXPORT_DENIED", "The export policy does not let this leave the cloud."
    ),
    InvalidRequest: Entry("INVALID_ARGUMENT", "INVALID_REQUEST", "The request is not valid."),
    MissingDeadline: Entry("INVALID_ARGUMENT", "MISSING_DEADLINE", "Every call must carry a deadline."),
    Busy: Entry("RESOURCE_EXHAUSTED", "BUSY", "The service is busy.", retryable=True),
    ExposureSpent: Entry(
        "RESOURCE_EXHAUSTED",
        "EXPOSURE_SPENT",
        "No more of what was asked for may leave for this identity today.",
    ),
    Draining: Entry("UNAVAILABLE", "DRAINING", "This node is shutting down.", retryable=True),
    DeadlineExceeded: Entry("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "The deadline passed."),
    Cancelled: Entry("CANCELLED", "CANCELLED", "The call was cancelled."),
    Unreachable: Entry("UNAVAILABLE", "UNREACHABLE", "The cloud cannot be reached.", retryable=True),
    RelayDisabled: Entry("FAILED_PRECONDITION", "RELAY_DISABLED", "This cloud does not relay text."),
    AuditUnavailable: Entry(
        "UNAVAILABLE", "AUDIT_UNAVAILABLE", "The service cannot record calls, so it answers none."
    ),
    DocumentsUnavailable: Entry(
        "UNAVAILABLE", "DOCUMENTS_UNAVAILABLE", "The service cannot read its documents."
    ),
    InternalError: Entry("INTERNAL", "INTERNAL", "The service failed."),
}


def entry_of(error: type[KvwireError]) -> Entry:
    """The catalogue's line for a class, or for its nearest ancestor that has one."""
    return next(CATALOGUE[c] for c in error.__mro__ if c in CATALOGUE)
