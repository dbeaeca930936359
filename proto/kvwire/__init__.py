"""The wire of KVWire: what edge and cloud must agree on, and nothing else.

The names below are those that callers of the SDK need. Kept light on purpose: torch is imported by `kvwire.codec`
alone, grpc by what talks, so a command line or a gateway starts fast.
"""

from kvwire.errors import (
    AccessDenied,
    AuditUnavailable,
    BadChecksum,
    BadHeader,
    BadPayload,
    Busy,
    Cancelled,
    DeadlineExceeded,
    DocumentsUnavailable,
    Draining,
    ExportDenied,
    ExposureSpent,
    IncompatiblePeer,
    InternalError,
    InvalidRequest,
    KvwireError,
    MissingDeadline,
    NoPassage,
    NotFound,
    RelayDisabled,
    TooLarge,
    Unreachable,
    Unsupported,
    WireError,
)
from kvwire.identity import Identity, ModelRef, PeerRole
from kvwire.limits import Limits
from kvwire.messages import PROTOCOL_VERSION, BundleRef, CodecRef, Description, Found, RelayReply
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import Segment, SegmentKind, SegmentSpec, SliceHeader, SliceKind, SliceTrailer

__all__ = [
    # what is asked
    "Section",
    "Role",
    "Visibility",
    "SliceKind",
    "Plan",
    "Limits",
    # what comes
    "SliceHeader",
    "Segment",
    "SegmentSpec",
    "SegmentKind",
    "SliceTrailer",
    "RelayReply",
    "Found",
    # who is there
    "Description",
    "BundleRef",
    "CodecRef",
    "ModelRef",
    "Identity",
    "PeerRole",
    "PROTOCOL_VERSION",
    # what goes wrong
    "KvwireError",
    "AccessDenied",
    "AuditUnavailable",
    "Busy",
    "Cancelled",
    "DeadlineExceeded",
    "DocumentsUnavailable",
    "Draining",
    "ExposureSpent",
    "ExportDenied",
    "IncompatiblePeer",
    "InternalError",
    "InvalidRequest",
    "MissingDeadline",
    "NoPassage",
    "NotFound",
    "RelayDisabled",
    "Unreachable",
    "WireError",
    "BadChecksum",
    "BadHeader",
    "BadPayload",
    "TooLarge",
    "Unsupported",
]
