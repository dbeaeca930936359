"""Reply: waits for a turn, runs one answer and sends what comes of it, in the form of the call."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Protocol

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from edge_node.answer import Answer
from edge_node.assistant import Assistant
from edge_node.asynchronous import AsyncAnswerStream
from edge_node.metrics import Watch
from edge_node.refusals import error_object, known, refusal, unanswered
from edge_node.request_queue import RequestQueue
from edge_node.stream import AnswerStream
from kvwire.errors import KvwireError

_KEEP_ALIVE_S: Final = 10.0
Write = Callable[[bytes], Awaitable[None]]


class Form(Protocol):
    """How one kind of call is answered.

    Attributes:
        streamed: piece by piece; else all at once, as JSON.
        media: the content type of a stream.
        waiting: what a stream says from time to time while it waits for its turn, if anything.
    """

    streamed: bool
    media: bytes
    waiting: bytes

    def piece(self, text: str) -> bytes:
        """A piece of the answer, in a stream."""

    def end(self, answer: Answer) -> bytes:
        """What follows the last piece."""

    def failed(self, told: dict[str, Any]) -> bytes:
        """The end of a stream that has begun and failed."""

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The answer at once."""

    def unanswered(self, error: dict[str, Any], answer: Answer) -> dict[str, Any]:
        """What is told of a question that got no answer."""


class AskForm:
    """POST /v1/ask: the answer as JSON, or JSON lines."""

    media = b"application/jsonl; charset=utf-8"
    waiting = b""

    def __init__(self, streamed: bool) -> None:
        self.streamed = streamed

    def piece(self, text: str) -> bytes:
        return _line({"piece": text})

    def end(self, answer: Answer) -> bytes:
        return _line({"answer": answer.to_dict()})

    def failed(self, told: dict[str, Any]) -> bytes:
        return _line(told)

    def whole(self, answer: Answer) -> dict[str, Any]:
        return answer.to_dict()

    def unanswered(self, error: dict[str, Any], answer: Answer) -> dict[str, Any]:
        return {"error": error, "answer": answer.to_dict()}


class Reply(Response):
    """Answers one call, as long as the caller is there."""

    def __init__(
        self, assistant: Assistant, stream: AnswerStream, queue: RequestQueue, form: Form, watch: Watch
    ) -> None:
        super().__init__()
        self._watch, self._came = watch, time.monotonic()
        self._outcome: Answer | KvwireError | None = None
        self._cloud = assistant.config.cloud.address
        self._stream, self._queue, self._form = stream, queue, form

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
            self._watch.ended(self._outcome, self._stream.request_id, time.monotonic() - self._came)
        if not answering.cancelled():
            answering.result()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nothing is sent before the first piece, so that an error until then has a status of its own; but a stream
        that waits long for its turn is kept alive."""
        form, begun = self._form, False

        async def write(data: bytes, more: bool = True) -> None:
            nonlocal begun
            if not begun:
                begun = True
                headers = [(b"content-type", form.media), (b"cache-control", b"no-store")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": data, "more_body": more})

        async def fail(told: dict[str, Any], response: Response) -> None:
            if begun:
                await write(form.failed(told), more=False)
            else:
                await response(scope, receive, send)

        try:
            async with self._turn(write):
                async for piece in AsyncAnswerStream(self._stream):
                    if form.streamed:
                        await write(form.piece(piece))
            self._outcome = answer = self._stream.answer
            if not answer.answered:
                status, error = unanswered(answer, self._cloud)
                told = form.unanswered(error, answer)
                # What may be tried again was, within the deadline.
                await fail(told, JSONResponse(told, status, {"X-Should-Retry": "false"}))
            elif form.streamed:
                await write(form.end(answer), more=False)
            else:
                await JSONResponse(form.whole(answer))(scope, receive, send)
        except Exception as error:
            self._outcome = it = known(error)
            await fail({"error": error_object(it)}, refusal(it))

    @contextlib.asynccontextmanager
    async def _turn(self, write: Write) -> AsyncIterator[None]:
        """A turn of the queue; a stream that waits for it is kept alive."""
        waiting = asyncio.ensure_future(self._keep_alive(write))
        try:
            async with self._queue.taken():
                await _ended(waiting)
                yield
        finally:
            await _ended(waiting)

    async def _keep_alive(self, write: Write) -> None:
        while self._form.streamed and self._form.waiting:
            await asyncio.sleep(_KEEP_ALIVE_S)
            await write(self._form.waiting)


def _line(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


async def _ended(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


async def _left(receive: Receive) -> None:
    """Ends when the caller has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
