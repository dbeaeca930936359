"""A link on a thread of its own, for code without an event loop."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

from ops.link.fault import Fault
from ops.link.proxy import LinkProxy
from ops.link.shape import Shape

T = TypeVar("T")


class BackgroundLink:
    """`LinkProxy` for any thread. A context manager: leaving it ends the link."""

    def __init__(self, to: str, shape: Shape, listen: str = "127.0.0.1:0") -> None:
        """Raises OSError, ValueError: as `LinkProxy`."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kvwire-link", daemon=True)
        self._thread.start()
        self._proxy = LinkProxy(listen, to, shape)
        try:
            self._run(self._proxy.start())
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._run(self._proxy.close())
        self._end()

    @property
    def address(self) -> str:
        """Where it listens ("host:port")."""
        return self._proxy.address

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes that entered the link since its shape was set: down, up."""
        return self._proxy.carried

    def reshape(self, shape: Shape) -> None:
        """Make it another link: connections through the old one end."""
        self._run(self._proxy.reshape(shape))

    @property
    def proxy(self) -> LinkProxy:
        """To look at: how many connections there were, and what they carried."""
        return self._proxy

    def break_new(self, fault: Fault | None, most: float = math.inf) -> None:
        """As `LinkProxy.break_new`."""
        self._run(_done(lambda: self._proxy.break_new(fault, most)))

    def strike(self, fault: Fault) -> None:
        """As `LinkProxy.strike`."""
        self._run(_done(lambda: self._proxy.strike(fault)))

    def silence(self, silent: bool) -> None:
        """As `LinkProxy.silence`."""
        self._run(_done(lambda: self._proxy.silence(silent)))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _done(work: Callable[[], None]) -> None:
    """On the loop's own thread."""
    work()
