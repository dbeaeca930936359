"""The local HTTP API of an edge node.

    POST /v1/ask   `edge_node.body.AskBody` as JSON -> the answer as JSON, or JSON lines:
                   {"piece": "..."} ... then {"answer": {...}} or {"error": {...}}
    GET  /healthz  what this node runs

It listens on loopback and asks for no credentials, so it takes JSON only and answers to loopback names only:
a web page in a browser can do neither without leave.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from edge_node.assistant import Assistant
from edge_node.body import AskBody, error_object, status_of
from edge_node.config import ApiConfig
from edge_node.stream import AnswerStream
from edge_node.turns import Turns
from kvwire.errors import Busy, Draining, InternalError, InvalidRequest, KvwireError, TooLarge

logger = logging.getLogger(__name__)


def make_app(assistant: Assistant, config: ApiConfig) -> Starlette:
    """The application around one assistant."""
    turns = Turns(config.max_waiting)

    async def ask(request: Request) -> Response:
        try:
            body = AskBody.parse(await _body(request, config.max_body_bytes))
            stream = assistant.stream(**body.arguments())
            await turns.take()
        except KvwireError as error:
            return _refusal(error)
        return _Reply(stream, turns.give_back, lines=body.stream)

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

    return Starlette(
        routes=[Route("/v1/ask", ask, methods=["POST"]), Route("/healthz", healthz, methods=["GET"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])],
    )


class _Reply(Response):
    """Runs one stream and sends what comes of it; gives the turn back whatever happens."""

    def __init__(self, stream: AnswerStream, give_back: Callable[[], None], lines: bool) -> None:
        super().__init__()
        self._stream, self._give_back, self._lines = stream, give_back, lines
        self._stopped = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._answer(Request(scope, receive), send))
        try:
            await asyncio.shield(work)
        finally:
            self._stopped = True
            if not work.done():  # cancelled: the Receiver is free only when its step is over
                await asyncio.wait([work])
            self._give_back()

    async def _answer(self, request: Request, send: Send) -> None:
        """Nothing is sent before the first piece, so that an error until then has a status of its own."""
        scope, receive = request.scope, request.receive
        begun = False
        try:
            piece = await asyncio.to_thread(next, self._stream, None)
            if self._lines:
                headers = [
                    (b"content-type", b"application/jsonl; charset=utf-8"),
                    (b"cache-control", b"no-store"),
                ]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                begun = True
            while piece is not None:
                if self._stopped or await request.is_disconnected():
                    return
                if self._lines:
                    await send(_line({"piece": piece}))
                piece = await asyncio.to_thread(next, self._stream, None)
            answer = self._stream.answer.to_dict()
            if self._lines:
                await send(_line({"answer": answer}, more=False))
            else:
                await JSONResponse(answer)(scope, receive, send)
        except Exception as error:
            known = _known(error)
            if begun:
                await send(_line(error_object(known), more=False))
            else:
                await _refusal(known)(scope, receive, send)
        finally:
            self._stream.close()


def _line(value: dict[str, Any], more: bool = True) -> dict[str, Any]:
    body = (json.dumps(value, ensure_ascii=False) + "\n").encode()
    return {"type": "http.response.body", "body": body, "more_body": more}


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


def _refusal(error: KvwireError) -> Response:
    headers = {}
    if isinstance(error, Busy | Draining):
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return JSONResponse(error_object(error), status_of(error), headers)
