"""Runs the local API in this process until SIGTERM or SIGINT."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_node.api import make_app
from edge_node.assistant import Assistant
from edge_node.config import EdgeConfig, split_address

_GRACE_S = 20
_HEAD_S = 10.0


def serve(config: EdgeConfig, ready: Callable[[str], None] | None = None) -> None:
    """Load the Receiver, listen, and return after a signal once requests in flight are answered."""
    host, port = split_address(config.api.listen)
    with Assistant.from_config(config) as assistant:
        server = make_server(make_app(assistant, config.api), ready)
        server.run(sockets=_listening(host, port))


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
    """HTTP/1.1 with a head of at most 64 KiB that comes in time; uvicorn has no time limit for a connection's first."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.loop.call_later(_HEAD_S, self._check_head)

    def _check_head(self) -> None:
        if self.cycle is None:
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
