"""The local HTTP API of an edge node.

    POST /v1/chat/completions   OpenAI's, of `edge_node.chat.ChatBody` (docs/api.md); without /v1 too, as the next two
    POST /v1/responses          OpenAI's, of `edge_node.responses.ResponsesBody`
    GET  /v1/models, /v1/models/{id}
    GET  /v1/kvwire/search?q=QUESTION&k=3
                   the passages of this tenant's documents that have the question's words:
                   {"data": [{"document": "note-1", "passage": 2, "score": 0.7}]}
    POST /v1/ask   `edge_node.body.AskBody` as JSON -> the answer as JSON, or JSON lines:
                   {"piece": "..."} ... then {"answer": {...}} or {"error": {...}}.
                   A question that got no answer: 503, 504 (too late) or 422 (asking again does not help), with
                   {"error": {...}, "answer": {...}}
    GET  /healthz  what this node runs
    GET  /         a page for the browser, of `edge_node.page_files` (docs/page.md)

Whatever else is asked gets {"error": {...}}. It listens on loopback, takes JSON only and answers to loopback names
only: a web page in a browser can do neither without leave. A caller who goes away is forgotten at once: a place in the
queue is free, a slice on its way is cancelled, and the Receiver stops.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge_node.ask import Ask
from edge_node.assistant import Assistant
from edge_node.body import AskBody, read_as, read_json
from edge_node.chat import MODEL, ChatBody, ChatForm, named_document
from edge_node.config import ApiConfig
from edge_node.guard import CLOSE, Guard
from edge_node.metrics import Watch
from edge_node.page_files import page_routes
from edge_node.refusals import Refused, known, refusal
from edge_node.reply import AskForm, Form, Reply
from edge_node.request_queue import RequestQueue
from edge_node.responses import ResponsesBody, ResponsesForm
from kvwire.errors import DeadlineExceeded, InvalidRequest, KvwireError, NotFound, TooLarge

_BODY_S: Final = 10.0
_USER_TOKEN: Final = "KVWire-User-Token"
"""The header that names the user to the cloud, as `Ask.user_token`: `Authorization` has the key of this API."""
_PATHS: Final = (
    "POST /v1/chat/completions, POST /v1/responses, GET /v1/models, POST /v1/ask, GET /v1/kvwire/search, GET /healthz "
    "and GET /"
)
Parse = Callable[[Any], tuple[Ask, Form]]
"""What a body's JSON asks, and the form of the answer."""


def make_app(assistant: Assistant, config: ApiConfig, body_s: float = _BODY_S) -> Starlette:
    """The application around one assistant, with its `Watch` as `state.watch`. `body_s`: seconds that a caller has to
    send a body."""
    queue, watch = RequestQueue(config.max_waiting, config.at_once), Watch(assistant)
    watch.queued(lambda: queue.length)
    bundle = assistant.bundle
    keys = config.keys()
    made, most_tokens = int(time.time()), assistant.client.limits.max_new_tokens

    def answering(parse: Parse) -> Callable[[Request], Any]:
        async def call(request: Request) -> Response:
            try:
                async with asyncio.timeout(body_s):
                    sent = await _body(request, config.max_body_bytes)
            except TimeoutError:
                return refusal(DeadlineExceeded(f"the body did not come within {body_s:g} s"), 408, CLOSE)
            except KvwireError as error:
                return refusal(error, headers=CLOSE)
            try:
                asked, form = parse(read_json(sent))
                asked = dataclasses.replace(asked, user_token=request.headers.get(_USER_TOKEN))
                return Reply(assistant, assistant.stream(asked), queue, form, watch)
            except Exception as error:
                it = known(error)
                watch.ended(it)
                return refusal(it)

        return call

    def ask(value: Any) -> tuple[Ask, Form]:
        body = read_as(AskBody, value)
        return body.ask(), AskForm(body.stream)

    def chat(value: Any) -> tuple[Ask, Form]:
        body = ChatBody.parse(value)
        return body.ask(most_tokens), ChatForm(body, f"fp_{bundle.hash[:12]}")

    def respond(value: Any) -> tuple[Ask, Form]:
        body = ResponsesBody.parse(value)
        return body.ask(most_tokens), ResponsesForm(body)

    def described(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": made, "owned_by": MODEL}

    async def models(request: Request) -> Response:
        names = [MODEL, *(f"{MODEL}/{document}" for document in config.documents)]
        return JSONResponse({"object": "list", "data": [described(name) for name in names]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            named_document(name)
        except Refused as error:
            return refusal(error)
        return JSONResponse(described(name))

    async def search(request: Request) -> Response:
        given = request.query_params
        try:
            if not (k := given.get("k", "3")).isascii() or not k.isdecimal():
                raise Refused(f"k is a number from 1, not {k!r:.40}", "k")
            of = functools.partial(assistant.client.search, user_token=request.headers.get(_USER_TOKEN))
            found = await asyncio.to_thread(of, given.get("q", ""), int(k[:9]))
        except Exception as error:
            return refusal(known(error))
        return JSONResponse({"object": "list", "data": [dataclasses.asdict(one) for one in found]})

    async def healthz(request: Request) -> Response:
        return JSONResponse(
            {
                "status": "ok",
                "receiver": str(bundle.config.receiver),
                "sharer": str(bundle.config.sharer),
                "bundle": bundle.hash,
                "cloud": assistant.config.cloud.address,
                "kinds": sorted(bundle.kinds),
                "kind": assistant.config.share.kind or bundle.config.usual,
                "keys": bool(keys),
            }
        )

    routes = [
        Route("/v1/ask", answering(ask), methods=["POST"]),
        Route("/v1/kvwire/search", search, methods=["GET"]),
        Route("/healthz", healthz, methods=["GET"]),
        *page_routes(),
    ]
    for base in ("/v1", ""):
        routes += [
            Route(f"{base}/chat/completions", answering(chat), methods=["POST"]),
            Route(f"{base}/responses", answering(respond), methods=["POST"]),
            Route(f"{base}/models", models, methods=["GET"]),
            Route(f"{base}/models/{{name:path}}", model, methods=["GET"]),
        ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, keys=keys, hosts=config.hosts, refused=watch.refused)],
        exception_handlers={HTTPException: _no_such_call, Exception: _failed},
    )
    app.router.redirect_slashes = False
    app.state.watch = watch
    return app


def _no_such_call(request: Request, error: Exception) -> Response:
    """An unknown path, or a wrong method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return refusal(NotFound(f"there is no such path; there are {_PATHS}"))
    allowed = (error.headers or {}).get("Allow", "another method")
    return refusal(InvalidRequest(f"this path takes {allowed}"), error.status_code, dict(error.headers or {}))


def _failed(request: Request, error: Exception) -> Response:
    return refusal(known(error))


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
