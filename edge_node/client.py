"""Clients of the cloud, with an event loop and without. Every call has a deadline, every failure is a KvwireError."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import math
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from google.protobuf.message import DecodeError

from edge_node.bounds import Deadline, retried
from edge_node.channel import CloudChannel, Traffic
from edge_node.config import EdgeConfig
from edge_node.connection import Connected
from edge_node.intake import SharedSlice, SliceStream
from edge_node.link import Link
from kvwire import PROTOCOL_VERSION, serde
from kvwire.errors import BadHeader, BadPayload, Cancelled, InvalidRequest, TooLarge
from kvwire.limits import Limits
from kvwire.messages import Description, Found, RelayReply, RelayRequest, SearchRequest, check_versions
from kvwire.plan import Plan
from kvwire.section import Section, Visibility
from kvwire.segment import REQUEST_ID_BYTES, SliceKind
from kvwire.v1 import sharer_pb2 as pb

if TYPE_CHECKING:
    from fuser import Bundle


T = TypeVar("T")


class AsyncClient:
    """A client of one cloud. Use it within one process and event loop, as a context manager or with `close`.

    async with AsyncClient(config) as client:
        async for part in client.share(sections, bundle, kind=SliceKind.EXCERPT):
            ...  # a SliceHeader, then Segments as they complete, then a SliceTrailer
    """

    def __init__(self, config: EdgeConfig, limits: Limits | None = None) -> None:
        self.config = config
        self.limits = limits or Limits()
        self._channel = CloudChannel(config, self.limits)
        self.link = self._channel.link
        """The running estimate of the link, from the calls of this client."""
        self.home = self._channel.home
        """The process that it may be used in."""
        self.connection = self._channel.connection
        """The connection of all calls, to be looked at."""
        self._offered: tuple[Connected, Description] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls in flight are cancelled. In a forked child there is none to close."""
        if self.home.here:
            await self._channel.close()

    async def describe(self, deadline_s: float | None = None) -> Description:
        """What the cloud offers. Raises KvwireError."""
        deadline = self._deadline(deadline_s)
        message = pb.DescribeRequest(protocol_version=PROTOCOL_VERSION).SerializeToString()

        async def once() -> Description:
            traffic = Traffic()
            reply = await self._channel.unary("Describe", message, deadline, traffic)
            self.link.round_trip(traffic.received_at - traffic.sent_at)
            try:
                return serde.description_from_proto(pb.DescribeResponse.FromString(reply))
            except (DecodeError, TooLarge) as error:
                raise BadHeader("a description that cannot be read") from error

        return await _retried(once, deadline)

    async def offered(self, deadline_s: float | None = None) -> Description:
        """As `describe`, asked for once a connection: a cloud reads its configuration when it starts."""
        held = self.connection.current
        if held is not None and self._offered is not None and self._offered[0] is held:
            return self._offered[1]
        told = await self.describe(deadline_s)
        held = self.connection.current
        self._offered = None if held is None else (held, told)
        return told

    async def search(
        self,
        question: str,
        k: int = 3,
        deadline_s: float | None = None,
        traffic: Traffic | None = None,
        user_token: str | None = None,
    ) -> tuple[Found, ...]:
        """The `k` passages of this tenant's documents that have most of a question's words; best first, or none.

        Args:
            traffic: counts the bytes of all attempts.
            user_token: as `Ask.user_token`.

        Raises:
            ExportDenied: the cloud lets nobody search. And the other errors of `kvwire.errors`.
        """
        deadline = self._deadline(deadline_s)
        message = serde.search_request_to_proto(SearchRequest(question=question, k=k))
        serde.search_request_from_proto(message, self.limits)  # refused here, if there

        async def once() -> tuple[Found, ...]:
            sent = message.SerializeToString()
            reply = await self._channel.unary("Search", sent, deadline, traffic or Traffic(), user_token)
            try:
                return serde.found_from_proto(pb.SearchResponse.FromString(reply), k, self.limits)
            except (DecodeError, TooLarge) as error:
                raise BadHeader("found passages that cannot be read") from error

        return await _retried(once, deadline)

    async def relay(
        self,
        sections: Sequence[Section],
        bundle: Bundle,
        *,
        max_new_tokens: int,
        max_bytes: int = 0,
        deadline_s: float | None = None,
        traffic: Traffic | None = None,
        user_token: str | None = None,
    ) -> RelayReply:
        """The Sharer's own answer as text, where the cloud allows that. Sections for the edge alone stay here.

        Args:
            max_bytes: the most bytes of UTF-8 it may have; 0 is no cap.
            traffic: counts the bytes of all attempts.
            user_token: as `Ask.user_token`.

        Raises:
            RelayDisabled: the cloud does not. And the other errors of `kvwire.errors`.
        """
        deadline = self._deadline(deadline_s)
        self.limits.check_sections(sections)
        sent = tuple(s for s in sections if s.visibility is not Visibility.EDGE)

        async def once() -> RelayReply:
            request = RelayRequest(
                request_id=os.urandom(REQUEST_ID_BYTES),
                sharer=bundle.config.sharer,
                max_new_tokens=max_new_tokens,
                sections=sent,
                max_bytes=max_bytes,
            )
            counted = traffic or Traffic()
            counted.request_id = request.request_id.hex()
            message = serde.relay_request_to_proto(request).SerializeToString()
            if len(message) > self.limits.max_request_bytes:
                raise TooLarge("request bytes", len(message), self.limits.max_request_bytes)
            answer = await self._channel.unary("Relay", message, deadline, counted, user_token)
            try:
                reply = serde.relay_reply_from_proto(pb.RelayResponse.FromString(answer), self.limits)
            except (DecodeError, TooLarge) as error:
                raise BadHeader("a relayed answer that cannot be read") from error
            if reply.request_id != request.request_id:
                raise BadHeader("a relayed answer to another request")
            check_versions(reply.versions, request)
            if 0 < max_bytes < len(reply.text.encode()):
                raise BadPayload(f"a relayed answer of more than the {max_bytes} bytes asked for")
            return reply

        return await _retried(once, deadline)

    def share(
        self,
        sections: Sequence[Section],
        bundle: Bundle,
        *,
        kind: SliceKind | str,
        plan: Plan | None = None,
        max_bytes: int = 0,
        deadline_s: float | None = None,
        user_token: str | None = None,
    ) -> SliceStream:
        """Ask for a slice. Sections for the edge alone stay here; the header's spans count all of `sections`.

        What is None comes from the configuration. Nothing is sent before the first iteration.

        Args:
            kind: or its name.
            plan: what of the slice is sent, and how.
            max_bytes: the most payload bytes it may come to; 0 is no cap.
            user_token: as `Ask.user_token`.

        Raises:
            InvalidRequest, TooLarge, Unsupported: the request could not be answered, so it is not sent.
        """
        kind = SliceKind.named(kind)
        return SliceStream(
            self._channel,
            sections,
            bundle,
            kind,
            plan or self.config.share.configured(kind),
            max_bytes,
            self._deadline(deadline_s),
            user_token,
        )

    def _deadline(self, after_s: float | None) -> Deadline:
        """A deadline `after_s` seconds from now, cut to `max_deadline_s`; as configured for None.

        Raises:
            InvalidRequest: it is no time from now on. RuntimeError: this is a forked child.
        """
        self.home.check()
        after_s = self.config.share.deadline_s if after_s is None else after_s
        if not 0 < after_s < math.inf:
            raise InvalidRequest(f"a deadline of {after_s} s")
        return Deadline(min(after_s, self.limits.max_deadline_s), self.limits.min_deadline_s)


async def _retried(once: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
    async def only() -> AsyncGenerator[T, None]:
        yield await once()

    async with contextlib.aclosing(retried(only, deadline)) as answers:
        return await anext(answers)


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

    def offered(
        self,
        deadline_s: float | None = None,
        begun: Callable[[concurrent.futures.Future[Description]], None] | None = None,
    ) -> Description:
        """As `AsyncClient.offered`. `begun` is given the call, which any thread may cancel: raises Cancelled."""
        return self._run(self._client.offered(deadline_s), begun)

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
        user_token: str | None = None,
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
                user_token=user_token,
            ),
            begun,
        )

    def search(
        self,
        question: str,
        k: int = 3,
        deadline_s: float | None = None,
        traffic: Traffic | None = None,
        begun: Callable[[concurrent.futures.Future[tuple[Found, ...]]], None] | None = None,
        user_token: str | None = None,
    ) -> tuple[Found, ...]:
        """As `AsyncClient.search`. `begun` is given the call, which any thread may cancel: raises Cancelled."""
        return self._run(self._client.search(question, k, deadline_s, traffic, user_token), begun)

    @property
    def link(self) -> Link:
        """The running estimate of the link, from the calls of this client."""
        return self._client.link

    @property
    def connection(self) -> str:
        """The state of the connection: see `Connection.state`."""
        return self._client.connection.state

    @property
    def last_call(self) -> str:
        """How the last call ended: see `Connection.last`."""
        return self._client.connection.last

    def share(
        self,
        sections: Sequence[Section],
        bundle: Bundle,
        *,
        kind: SliceKind | str,
        plan: Plan | None = None,
        max_bytes: int = 0,
        deadline_s: float | None = None,
        user_token: str | None = None,
    ) -> SharedSlice:
        """As `AsyncClient.share`, but the request is sent at once and parts wait to be asked for."""
        stream = self._client.share(
            sections,
            bundle,
            kind=kind,
            plan=plan,
            max_bytes=max_bytes,
            deadline_s=deadline_s,
            user_token=user_token,
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
