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

from edge_node.api import make_app
from edge_node.assistant import Assistant
from edge_node.config import EdgeConfig, split_address

_GRACE_S = 20


def serve(config: EdgeConfig, ready: Callable[[str], None] | None = None) -> None:
    """Load the Receiver, listen, and return after a signal once requests in flight are answered."""
    host, port = split_address(config.api.listen)
    with Assistant.from_config(config) as assistant:
        app = make_app(assistant, config.api)
        _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
            ),
            ready,
        ).run(sockets=_listening(host, port))


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
