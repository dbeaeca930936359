"""AsyncClient: asks the cloud for slices. Every call has a deadline, every failure is of `kvwire.errors`."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Self, TypeVar

from google.protobuf.message import DecodeError

from edge_node.channel import CloudChannel, Traffic
from edge_node.config import EdgeConfig
from edge_node.intake import Intake, Part
from edge_node.link import Link
from edge_node.process import Home
from edge_node.retry import Deadline, retried
from kvwire import PROTOCOL_VERSION, serde
from kvwire.codec import CodecRegistry
from kvwire.errors import BadHeader, BadPayload, DeadlineExceeded, InvalidRequest, TooLarge
from kvwire.limits import Limits
from kvwire.messages import Description, RelayReply, RelayRequest, ShareRequest
from kvwire.plan import Plan
from kvwire.section import Section, Visibility
from kvwire.segment import REQUEST_ID_BYTES, SliceHeader, SliceKind, SliceTrailer
from kvwire.slice_io import check_bytes, most_bytes, payload_codec
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
        self.link = Link()
        """The running estimate of the link, from the calls of this client."""
        self.home = Home("a client of the cloud")
        """The process that it may be used in."""
        self._channel = CloudChannel(config, self.limits)

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

    async def relay(
        self,
        sections: Sequence[Section],
        bundle: Bundle,
        *,
        max_new_tokens: int,
        max_bytes: int = 0,
        deadline_s: float | None = None,
        traffic: Traffic | None = None,
    ) -> RelayReply:
        """The Sharer's own answer as text, where the cloud allows that. Sections for the edge alone stay here.

        Args:
            max_bytes: the most bytes of UTF-8 it may have; 0 is no cap.
            traffic: counts the bytes of all attempts.

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
            message = serde.relay_request_to_proto(request).SerializeToString()
            if len(message) > self.limits.max_request_bytes:
                raise TooLarge("request bytes", len(message), self.limits.max_request_bytes)
            answer = await self._channel.unary("Relay", message, deadline, traffic or Traffic())
            try:
                reply = serde.relay_reply_from_proto(pb.RelayResponse.FromString(answer))
            except DecodeError as error:
                raise BadHeader("a relayed answer that cannot be read") from error
            if reply.request_id != request.request_id:
                raise BadHeader("a relayed answer to another request")
            if 0 < max_bytes < len(reply.text.encode()):
                raise BadPayload(f"a relayed answer of more than the {max_bytes} bytes asked for")
            return reply

        return await _retried(once, deadline)

    def share(
        self,
        sections: Sequence[Section],
        bundle: Bundle,
        *,
        kind: SliceKind,
        plan: Plan | None = None,
        max_bytes: int = 0,
        deadline_s: float | None = None,
    ) -> SliceStream:
        """Ask for a slice. Sections for the edge alone stay here; the header's spans count all of `sections`.

        What is None comes from the configuration. Nothing is sent before the first iteration.

        Args:
            plan: what of the slice is sent, and how.
            max_bytes: the most payload bytes it may come to; 0 is no cap.

        Raises:
            InvalidRequest, TooLarge, Unsupported: the request could not be answered, so it is not sent.
        """
        return SliceStream(
            self,
            self._channel,
            sections,
            bundle,
            kind,
            plan or self.config.share.configured,
            max_bytes,
            self._deadline(deadline_s),
        )

    def _deadline(self, after_s: float | None) -> Deadline:
        """So many seconds from now, cut to `max_deadline_s`; as configured for None.

        Raises:
            InvalidRequest: it is no time from now on. RuntimeError: this is a forked child.
        """
        self.home.check()
        after_s = self.config.share.deadline_s if after_s is None else after_s
        if not 0 < after_s < math.inf:
            raise InvalidRequest(f"a deadline of {after_s} s")
        return Deadline(min(after_s, self.limits.max_deadline_s), self.limits.min_deadline_s)


class SliceStream:
    """The parts of one slice as they arrive, verified and decoded off the event loop. Close it or read it up.

    Until the header is here a call that failed may be tried again; each attempt has a request id of its own.
    """

    def __init__(
        self,
        client: AsyncClient,
        channel: CloudChannel,
        sections: Sequence[Section],
        bundle: Bundle,
        kind: SliceKind,
        plan: Plan,
        max_bytes: int,
        deadline: Deadline,
    ) -> None:
        from fuser.slice_specs import slice_specs

        if kind not in bundle.kinds:
            raise InvalidRequest(f"this bundle takes no {kind} slices in")
        least = slice_specs(bundle, kind, plan, 1, "bfloat16")  # refuses what the bundle cannot do
        self.home = client.home
        self._channel, self._bundle, self._limits, self._link = channel, bundle, client.limits, client.link
        self._codec = payload_codec(plan, CodecRegistry(bundle.codecs()).get(plan.codec))
        self._deadline = deadline
        self._kind, self._plan, self._max_bytes = kind, plan, max_bytes
        self._places = [i for i, s in enumerate(sections) if s.visibility is not Visibility.EDGE]
        self._sections = tuple(sections[i] for i in self._places)
        self._intake: Intake | None = None
        self._traffic, self._decode_s = Traffic(), 0.0
        self._limits.check_sections(self._sections)
        self._request()
        check_bytes(least, self._codec, max_bytes)
        self._parts = retried(self._once, deadline)

    @property
    def bytes_sent(self) -> int:
        """Serialised messages sent, all attempts."""
        return self._traffic.sent

    @property
    def bytes_received(self) -> int:
        """Serialised messages received, all attempts."""
        return self._traffic.received

    @property
    def payload_bytes(self) -> int:
        """Bytes of segments that were received and good, last attempt."""
        return self._intake.payload_bytes if self._intake else 0

    @property
    def share_arrived(self) -> float:
        """Share of the slice that arrived and decoded, 0 to 1, last attempt."""
        return self._intake.arrived if self._intake else 0.0

    @property
    def decode_s(self) -> float:
        """Seconds from a message's arrival to its being checked and decoded, over all messages."""
        return self._decode_s

    def __aiter__(self) -> AsyncIterator[Part]:
        return self

    async def __anext__(self) -> Part:
        return await anext(self._parts)

    async def aclose(self) -> None:
        """Cancel the call if it is still going on."""
        await self._parts.aclose()

    async def _once(self) -> AsyncGenerator[Part, None]:
        request = self._request()
        message = serde.share_request_to_proto(request).SerializeToString()
        if len(message) > self._limits.max_request_bytes:
            raise TooLarge("request bytes", len(message), self._limits.max_request_bytes)
        self._intake = intake = Intake(request, self._places, self._bundle, self._codec, self._limits)
        replies = self._channel.stream("Share", message, self._deadline, self._traffic)
        came: list[float] = []
        most = 0
        summary: SliceTrailer | None = None
        try:
            async with contextlib.aclosing(replies):  # type: ignore[type-var]
                async for reply in replies:
                    came.append(self._traffic.received_at)
                    parts = await asyncio.to_thread(intake.take, reply)
                    self._decode_s += time.monotonic() - came[-1]
                    for part in parts:
                        if isinstance(part, SliceTrailer):
                            summary, end = part, came[-1]
                            waited_s = came[0] - self._traffic.sent_at
                            self._link.slice_came(
                                part.payload_bytes, waited_s, end - came[0], end - came[1], part.timings
                            )
                            continue
                        if isinstance(part, SliceHeader):
                            most = most_bytes(part.specs, self._codec)
                        yield part
        except DeadlineExceeded:
            if came:
                self._link.slice_late(most, time.monotonic() - came[0])
            raise
        intake.end()
        if summary is not None:
            yield summary  # once the cloud has closed the call without an error

    def _request(self) -> ShareRequest:
        return ShareRequest(
            request_id=os.urandom(REQUEST_ID_BYTES),
            sharer=self._bundle.config.sharer,
            bundle_hash=self._bundle.hash,
            codec_hash=self._codec.parameters_hash,
            kind=self._kind,
            plan=self._plan,
            sections=self._sections,
            max_bytes=self._max_bytes,
        )


async def _retried(once: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
    async def only() -> AsyncGenerator[T, None]:
        yield await once()

    async with contextlib.aclosing(retried(only, deadline)) as answers:
        return await anext(answers)
