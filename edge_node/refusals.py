"""Errors as the local API tells them: in OpenAI's shape, with the catalogue's reason as their code."""

from __future__ import annotations

import logging
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from edge_node.answer import EMPTY, NO_PLAN, NOTHING_FOUND, NOTHING_TO_SHARE, Answer, explained
from kvwire.errors import (
    AccessDenied,
    Busy,
    Draining,
    ExposureSpent,
    IncompatiblePeer,
    InternalError,
    InvalidRequest,
    KvwireError,
    NotFound,
    TokenRefused,
    TooLarge,
    Unsupported,
    entry_of,
)

logger = logging.getLogger(__name__)

_STATUS: Final[tuple[tuple[type[KvwireError], int], ...]] = (
    (NotFound, 404),
    (TokenRefused, 401),
    (AccessDenied, 403),
    (InvalidRequest, 400),
    (Unsupported, 400),
    (TooLarge, 413),
    (IncompatiblePeer, 409),
    (ExposureSpent, 429),
    (Busy, 503),
    (Draining, 503),
)
_UNANSWERED: Final = {
    "DEADLINE_EXCEEDED": 504,
    "EXPOSURE_SPENT": 429,
    **dict.fromkeys((EMPTY, NO_PLAN, NOTHING_FOUND, NOTHING_TO_SHARE, "RELAY_DISABLED"), 422),
}
"""What time did not allow; what asking again does not mend. Anything else is a service that is not there: 503."""


class Refused(InvalidRequest):
    """A call that this API does not take.

    Args:
        detail: why.
        param: the field of the body.
        code: in place of the catalogue's reason; of this API, in lower case.
        status: of HTTP.
    """

    def __init__(
        self, detail: str, param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(detail)
        self.args = (detail, param, code, status)
        self.param, self.code, self.status = param, code, status


def known(error: Exception) -> KvwireError:
    """Foreign messages may quote a text, so only their type is kept."""
    if isinstance(error, KvwireError):
        return error
    logger.error("%s while answering", type(error).__name__)
    return InternalError(type(error).__name__)


def status_of(error: KvwireError) -> int:
    """The HTTP status for an error."""
    if isinstance(error, Refused):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_object(error: KvwireError, status: int | None = None) -> dict[str, Any]:
    """What happened, with names and numbers about it in `metadata`."""
    param, code = (error.param, error.code) if isinstance(error, Refused) else (None, None)
    code = code or entry_of(type(error)).reason
    return _object(str(error), status or status_of(error), param, code) | {"metadata": error.metadata()}


def unanswered(answer: Answer, cloud: str) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the error of a question that got no answer. `cloud`: its address, to be named."""
    status = _UNANSWERED.get(answer.reason or "", 503)
    return status, _object(explained(answer, cloud), status, None, answer.reason or "INTERNAL")


def refusal(error: KvwireError, status: int | None = None, headers: dict[str, str] | None = None) -> Response:
    """An error as a whole reply. `status`: in place of the error's own."""
    status = status or status_of(error)
    told = {"X-Should-Retry": str(error.retryable).lower()} | (headers or {})
    if isinstance(error, Busy | Draining | ExposureSpent):
        told["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return JSONResponse({"error": error_object(error, status)}, status, told)


def _object(message: str, status: int, param: str | None, code: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"message": message, "type": kind, "param": param, "code": code}
