"""Runs the local API in this process until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_node.api import make_app
from edge_node.assistant import Assistant
from edge_node.config import EdgeConfig, split_address
from edge_node.refusals import refusal
from kvwire.errors import Busy, InvalidRequest, KvwireError
from kvwire.limits import raise_descriptors
from kvwire.telemetry import write_logs

_GRACE_S = 20
_HEAD_S = 10.0
_MOST_CONNECTIONS = 256


def run(config: EdgeConfig, ready: Callable[[str], None] | None = None) -> None:
    """Load the Receiver and serve the local API until SIGTERM or SIGINT; requests in flight are then answered.

    `ready` is called once, with the address listened on ("host:port"), when questions can be answered.
    """
    write_logs(config.telemetry)
    host, port = split_address(config.api.listen)
    try:
        for one in _listening(host, port):  # before the model is loaded, which takes long
            one.close()
    except OSError as error:
        raise OSError(
            f"{config.api.listen} cannot be listened on ({error}); set another [api] listen"
        ) from error
    with Assistant.from_config(config) as assistant:
        app = make_app(assistant, config.api)
        server = make_server(app, ready)
        listening = _listening(host, port)
        with app.state.watch.telling():
            server.run(sockets=listening)


def make_server(app: ASGIApp, ready: Callable[[str], None] | None = None) -> uvicorn.Server:
    """A server of `app`, to be run with bound sockets; `ready` is told the first one's address when it listens."""
    config = uvicorn.Config(
        app,
        http=_Protocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    return _Server(config, ready)


class _Protocol(H11Protocol):
    """HTTP/1.1 with heads of at most 64 KiB that come in time, over a bounded number of connections.

    uvicorn has no time limit for a connection's first head, forgets the one for later heads at their first byte, and
    waits for ever for the rest of a body that nobody reads. Here a connection that `_HEAD_S` after its beginning, or
    after a response, is in no request is closed.
    """

    _until_head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            self._turn_away(Busy())
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._expect_head()
        super().on_response_complete()

    def _expect_head(self) -> None:
        self._forget_head()
        self._until_head = self.loop.call_later(_HEAD_S, self._check_head)

    def _forget_head(self) -> None:
        if self._until_head is not None:
            self._until_head.cancel()

    def _check_head(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls for bytes that are no HTTP."""
        self._turn_away(InvalidRequest("this is not HTTP/1.1, or its head is over 64 KiB"))

    def _turn_away(self, error: KvwireError) -> None:
        told = refusal(error)
        headers = [*told.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=told.status_code, headers=headers),
            h11.Data(data=bytes(told.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _listening(host: str, port: int) -> list[socket.socket]:
    """Bound sockets: `localhost` is both loopback addresses at one port, as far as this machine has them.

    Raises:
        OSError: the address is taken or not ours.
    """
    if host != "localhost":
        return [_bound(host, port)]
    first = _bound("127.0.0.1", port)
    try:
        return [first, _bound("::1", first.getsockname()[1])]
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            first.close()
            raise
        return [first]  # no IPv6 here


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


class _Server(uvicorn.Server):
    """A server that says when it listens, and that leaves a signal's process to end by itself."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[str], None] | None) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: Any = None) -> None:
        raise_descriptors()
        await super().startup(sockets)
        if self.started and self._ready is not None:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._ready(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self.handle_exit) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
