"""The local HTTP API of an edge node.

    POST /v1/ask   `edge_node.body.AskBody` as JSON -> the answer as JSON, or JSON lines:
                   {"piece": "..."} ... then {"answer": {...}} or {"error": {...}}.
                   A question that got no answer: 503, 504 (too late) or 422 (asking again does not help), with
                   {"error": {...}, "answer": {...}}
    GET  /healthz  what this node runs

Whatever else is asked gets {"error": {...}}. It listens on loopback and asks for no credentials, so it takes JSON only
and answers to loopback names only: a web page in a browser can do neither without leave. A caller who goes away is
forgotten at once: a place in the queue is free, a slice on its way is cancelled, and the Receiver stops.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any, Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from edge_node.assistant import Assistant
from edge_node.body import AskBody, error_object, status_of, unanswered
from edge_node.config import ApiConfig
from edge_node.request_queue import RequestQueue
from edge_node.stream import AnswerStream
from kvwire.errors import (
    Busy,
    DeadlineExceeded,
    Draining,
    InternalError,
    InvalidRequest,
    KvwireError,
    NotFound,
    TooLarge,
)

logger = logging.getLogger(__name__)

_BODY_S: Final = 10.0
_CLOSE: Final = {"Connection": "close"}
"""Of refusals before the body is read: the rest of it is not waited for."""
_LOOPBACK: Final = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)


def make_app(assistant: Assistant, config: ApiConfig, body_s: float = _BODY_S) -> Starlette:
    """The application around one assistant. `body_s`: seconds that a caller has to send a body."""
    queue = RequestQueue(config.max_waiting)

    async def ask(request: Request) -> Response:
        try:
            async with asyncio.timeout(body_s):
                sent = await _body(request, config.max_body_bytes)
        except TimeoutError:
            return refusal(DeadlineExceeded(f"the body did not come within {body_s:g} s"), 408, _CLOSE)
        except KvwireError as error:
            return refusal(error, headers=_CLOSE)
        try:
            body = AskBody.parse(sent)
            return _Reply(assistant, assistant.stream(**body.arguments()), queue, lines=body.stream)
        except Exception as error:
            return refusal(_known(error))

    async def healthz(request: Request) -> Response:
        bundle = assistant.bundle
        return JSONResponse(
            {
                "status": "ok",
                "receiver": str(bundle.config.receiver),
                "sharer": str(bundle.config.sharer),
                "bundle": bundle.hash,
                "cloud": assistant.config.cloud.address,
            }
        )

    app = Starlette(
        routes=[Route("/v1/ask", ask, methods=["POST"]), Route("/healthz", healthz, methods=["GET"])],
        middleware=[Middleware(_LoopbackOnly)],
        exception_handlers={HTTPException: _no_such_call},
    )
    app.router.redirect_slashes = False
    return app


class _LoopbackOnly:
    """Refuses requests that name another host: a page of another origin may have had its name point here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = scope["type"] == "lifespan" or _LOOPBACK.fullmatch(Headers(scope=scope).get("host", ""))
        if not named:
            await refusal(InvalidRequest("the Host header names no loopback address"))(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _no_such_call(request: Request, error: Exception) -> Response:
    """An unknown path, or a wrong method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return refusal(NotFound("there is no such path; there are POST /v1/ask and GET /healthz"))
    allowed = (error.headers or {}).get("Allow", "another method")
    return refusal(InvalidRequest(f"this path takes {allowed}"), error.status_code, dict(error.headers or {}))


class _Reply(Response):
    """Waits for a turn, runs one stream and sends what comes of it, as long as the caller is there."""

    def __init__(self, assistant: Assistant, stream: AnswerStream, queue: RequestQueue, lines: bool) -> None:
        super().__init__()
        self._cloud = assistant.config.cloud.address
        self._stream, self._queue, self._lines = stream, queue, lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = asyncio.ensure_future(self._answer(scope, receive, send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stream.close()
            answering.cancel()
            leaving.cancel()
            await asyncio.wait((answering, leaving))
        if not answering.cancelled():
            answering.result()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nothing is sent before the first piece, so that an error until then has a status of its own."""
        begun = False

        async def line(value: dict[str, Any], more: bool = True) -> None:
            nonlocal begun
            if not begun:
                await send({"type": "http.response.start", "status": 200, "headers": _LINES})
                begun = True
            body = (json.dumps(value, ensure_ascii=False) + "\n").encode()
            await send({"type": "http.response.body", "body": body, "more_body": more})

        try:
            async with self._queue.taken():
                while (piece := await self._next()) is not None:
                    if self._lines:
                        await line({"piece": piece})
            answer = self._stream.answer
            if not answer.answered:
                status, told = unanswered(answer, self._cloud)
                await JSONResponse(told, status)(scope, receive, send)
            elif self._lines:
                await line({"answer": answer.to_dict()}, more=False)
            else:
                await JSONResponse(answer.to_dict())(scope, receive, send)
        except Exception as error:
            if begun:
                await line(error_object(_known(error)), more=False)
            else:
                await refusal(_known(error))(scope, receive, send)

    async def _next(self) -> str | None:
        """The next piece. Cancelled, it waits for the Receiver's step: only then is the turn another's."""
        step = asyncio.ensure_future(asyncio.to_thread(next, self._stream, None))
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.gather(step, return_exceptions=True)
            raise


_LINES: Final = [
    (b"content-type", b"application/jsonl; charset=utf-8"),
    (b"cache-control", b"no-store"),
]


async def _left(receive: Receive) -> None:
    """Ends when the caller has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _known(error: Exception) -> KvwireError:
    """Foreign messages may quote a text, so only their type is kept."""
    if isinstance(error, KvwireError):
        return error
    logger.error("%s while answering", type(error).__name__)
    return InternalError(type(error).__name__)


async def _body(request: Request, limit: int) -> bytes:
    """The whole body.

    Raises:
        InvalidRequest: not declared as JSON, or the caller went away.
        TooLarge: over `limit` bytes.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise InvalidRequest("the body is not declared as application/json")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise TooLarge("request bytes", len(body), limit)
    except ClientDisconnect as error:
        raise InvalidRequest("the caller went away") from error
    return bytes(body)


def refusal(error: KvwireError, status: int | None = None, headers: dict[str, str] | None = None) -> Response:
    """An error as this API tells it."""
    headers = dict(headers or {})
    if isinstance(error, Busy | Draining):
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return JSONResponse(error_object(error), status or status_of(error), headers)
