"""Client: the same client for code without an event loop. It runs an AsyncClient on a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from edge_node.channel import Traffic
from edge_node.client import AsyncClient, SliceStream
from edge_node.config import EdgeConfig
from edge_node.intake import Part
from edge_node.link import Link
from kvwire.errors import Cancelled
from kvwire.limits import Limits
from kvwire.messages import Description, RelayReply
from kvwire.plan import Plan
from kvwire.section import Section
from kvwire.segment import SliceKind

if TYPE_CHECKING:
    from fuser import Bundle

T = TypeVar("T")
Begin = Callable[[Coroutine[Any, Any, None]], concurrent.futures.Future[None]]
"""Starts work on the thread of a client."""


class Client:
    """A client of one cloud for any thread of the process that made it. Close it, or use it as a context manager."""

    def __init__(self, config: EdgeConfig, limits: Limits | None = None) -> None:
        self._client = AsyncClient(config, limits)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kvwire-client", daemon=True)
        self._thread.start()
        self._closed, self._door = False, threading.Lock()
        atexit.register(self.close)

    @property
    def limits(self) -> Limits:
        """The caps this side holds to."""
        return self._client.limits

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and stop the thread; calls in flight are cancelled.

        In a forked child there is neither, so it does nothing there.
        """
        atexit.unregister(self.close)
        if not self._client.home.here:
            return
        with self._door:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def describe(self, deadline_s: float | None = None) -> Description:
        """What the cloud offers. Raises KvwireError."""
        return self._run(self._client.describe(deadline_s))

    def relay(
        self,
        sections: Sequence[Section],
        bundle: Bundle,
        *,
        max_new_tokens: int,
        max_bytes: int = 0,
        deadline_s: float | None = None,
        traffic: Traffic | None = None,
        begun: Callable[[concurrent.futures.Future[RelayReply]], None] | None = None,
    ) -> RelayReply:
        """As `AsyncClient.relay`. `begun` is given the call, which any thread may cancel: raises Cancelled."""
        return self._run(
            self._client.relay(
                sections,
                bundle,
                max_new_tokens=max_new_tokens,
                max_bytes=max_bytes,
                deadline_s=deadline_s,
                traffic=traffic,
            ),
            begun,
        )

    @property
    def link(self) -> Link:
        """The running estimate of the link, from the calls of this client."""
        return self._client.link

    def share(
        self,
        sections: Sequence[Section],
        bundle: Bundle,
        *,
        kind: SliceKind,
        plan: Plan | None = None,
        max_bytes: int = 0,
        deadline_s: float | None = None,
    ) -> SharedSlice:
        """As `AsyncClient.share`, but the request is sent at once and parts wait to be asked for."""
        stream = self._client.share(
            sections, bundle, kind=kind, plan=plan, max_bytes=max_bytes, deadline_s=deadline_s
        )
        return SharedSlice(stream, self._begun)

    async def _finish(self) -> None:
        await self._client.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _run(
        self,
        work: Coroutine[Any, Any, T],
        begun: Callable[[concurrent.futures.Future[T]], None] | None = None,
    ) -> T:
        call = self._begun(work)
        if begun is not None:
            begun(call)
        try:
            return call.result()
        except concurrent.futures.CancelledError as error:
            raise Cancelled("the call was cancelled") from error

    def _begun(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """On the client's thread; what was begun there before `close` is ended by it, so nobody waits for ever.

        Raises:
            Cancelled: the client is closed. RuntimeError: this is a forked child.
        """
        try:
            self._client.home.check()
            with self._door:
                if self._closed:
                    raise Cancelled("the client is closed")
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException:
            work.close()
            raise


class SharedSlice:
    """The parts of one slice: a header, segments, a summary. Close it or read it to its end."""

    def __init__(self, stream: SliceStream, begin: Begin) -> None:
        self.stream = stream
        """Its counters: bytes_sent, bytes_received, payload_bytes, share_arrived."""
        self._parts: queue.SimpleQueue[Part | BaseException | None] = queue.SimpleQueue()
        self._pump = begin(self._read())

    def __iter__(self) -> Iterator[Part]:
        """Parts in order; raises the KvwireError that ended the slice, RuntimeError in a forked child."""
        while True:
            self.stream.home.check()
            part = self._parts.get()
            if part is None:
                return
            if isinstance(part, BaseException):
                raise part
            yield part

    def close(self) -> None:
        """Cancel the call if it is still going on. In a forked child there is none."""
        if not self.stream.home.here:
            return
        self._pump.cancel()
        self._parts.put(Cancelled("the slice was closed"))  # where the reader never began

    async def _read(self) -> None:
        end: BaseException | None = None
        try:
            async for part in self.stream:
                self._parts.put(part)
        except asyncio.CancelledError:
            end = Cancelled("the slice was closed")
            raise
        except Exception as error:
            end = error
        finally:
            await self.stream.aclose()
            self._parts.put(end)
