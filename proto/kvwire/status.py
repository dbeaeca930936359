"""Errors to and from gRPC: `google.rpc.Status` with `ErrorInfo` and `RetryInfo` in the trailers (AIP-193).

grpc is imported on use: the error tree is also raised where no connection is ever made.
"""

import math
import re
from typing import TYPE_CHECKING, Any, Final

from kvwire.errors import (
    CATALOGUE,
    AccessDenied,
    Busy,
    Cancelled,
    DeadlineExceeded,
    Draining,
    ExportDenied,
    ExposureSpent,
    IncompatiblePeer,
    InternalError,
    InvalidRequest,
    KvwireError,
    NoPassage,
    NotFound,
    TooLarge,
    Unreachable,
    WireError,
    entry_of,
)

if TYPE_CHECKING:
    import grpc

DOMAIN: Final = "kvwire"
"""`google.rpc.ErrorInfo.domain` of every error of ours."""
_DETAILS_KEY = "grpc-status-details-bin"
_MAX_RETRY_S = 86_400.0
_MESSAGE_SIZE = re.compile(r"(?:Received|Sent) message larger than max \((\d{1,18}) vs\. (\d{1,18})\)")
_BY_REASON = {entry.reason: error for error, entry in CATALOGUE.items()}
_OF_THE_LINK: Final = ("INTERNAL", "UNKNOWN")
_BY_CODE: dict[str, type[KvwireError]] = {
    "UNAVAILABLE": Unreachable,
    **dict.fromkeys(_OF_THE_LINK, Unreachable),
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": Cancelled,
    "NOT_FOUND": NotFound,
    "PERMISSION_DENIED": AccessDenied,
    "UNAUTHENTICATED": AccessDenied,
    "INVALID_ARGUMENT": InvalidRequest,
    "DATA_LOSS": WireError,
}


def to_grpc(error: BaseException) -> "grpc.Status":
    """What to abort a call with: `await context.abort_with_status(to_grpc(error))`.

    Only the catalogue's text and the error's metadata go out. An exception outside the tree becomes INTERNAL.
    """
    import grpc
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.duration_pb2 import Duration
    from google.rpc import error_details_pb2, status_pb2
    from grpc_status import rpc_status

    known = error if isinstance(error, KvwireError) else InternalError()
    entry = entry_of(type(known))
    info = error_details_pb2.ErrorInfo(reason=entry.reason, domain=DOMAIN, metadata=known.metadata())
    details = [AnyMessage()]
    details[0].Pack(info)
    if isinstance(known, Busy | Draining | ExposureSpent):
        delay = Duration()
        delay.FromMilliseconds(round(known.retry_after_s * 1_000))
        details.append(AnyMessage())
        details[1].Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    code = grpc.StatusCode[entry.status].value[0]
    return rpc_status.to_status(status_pb2.Status(code=code, message=entry.text, details=details))


def from_rpc_error(error: Any) -> KvwireError:
    """The error that a failed call means.

    Args:
        error: a `grpc.RpcError` of the sync or the async client.

    Returns:
        The class named by the cloud's ErrorInfo; without one of ours, the class nearest to the status code. No cloud
        of ours says INTERNAL or UNKNOWN without one: that is the transport, or a server of another kind.
    """
    code, details = error.code().name, error.details() or ""
    reason, metadata, retry_after_s = _rich_details(error.trailing_metadata() or ())
    kind = _BY_REASON.get(reason)
    if kind is None or entry_of(kind).status != code:
        if reason and code in _OF_THE_LINK:
            return InternalError(f"{code}: {details[:300]}")
        return _from_code(code, details)
    try:
        if kind is IncompatiblePeer:
            return IncompatiblePeer(metadata["field"][:100], metadata["cloud"], metadata["edge"])
        if kind is TooLarge:
            return TooLarge(metadata["what"][:100], int(metadata["size"][:20]), int(metadata["limit"][:20]))
        if kind is ExportDenied:
            return ExportDenied(metadata["what"][:100])
        if kind is NoPassage:
            return NoPassage(int(metadata["passage"][:20]))
    except (KeyError, ValueError):
        return _from_code(code, details)
    if kind is Busy or kind is Draining or kind is ExposureSpent:
        return kind(retry_after_s)
    return kind()


def _rich_details(trailers: Any) -> tuple[str, dict[str, str], float]:
    """Reason, metadata and retry seconds of the trailers; a peer's trailers may hold anything."""
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2

    reason, metadata, retry_after_s = "", {}, 1.0
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for key, value in trailers:
        if key != _DETAILS_KEY:
            continue
        try:
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info) and info.domain == DOMAIN:
                    reason, metadata = info.reason, dict(info.metadata)
                elif detail.Unpack(retry):
                    retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos * 1e-9
        except (DecodeError, TypeError):
            return "", {}, 1.0
    return (
        reason,
        metadata,
        min(max(retry_after_s, 0.0), _MAX_RETRY_S) if math.isfinite(retry_after_s) else 1.0,
    )


def _from_code(code: str, details: str) -> KvwireError:
    text = f"{code}: {details[:300]}"
    if code == "RESOURCE_EXHAUSTED":
        sizes = _MESSAGE_SIZE.search(details)
        return TooLarge("message bytes", int(sizes[1]), int(sizes[2])) if sizes else Busy()
    if code == "UNIMPLEMENTED":
        return IncompatiblePeer("service", "no such method", "kvwire.v1.SharerService")
    return _BY_CODE.get(code, InternalError)(text)
