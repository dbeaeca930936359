"""One slice on its way in: asked for, then verified and decoded as its messages arrive, before any of it is used."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import os
import queue
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError

from edge_node.bounds import Deadline, retried
from edge_node.channel import CloudChannel, Traffic
from kvwire import serde
from kvwire.codec import CodecRegistry
from kvwire.errors import BadHeader, BadPayload, Cancelled, DeadlineExceeded, InvalidRequest, TooLarge
from kvwire.limits import Limits
from kvwire.messages import ShareRequest, check_header
from kvwire.plan import Plan
from kvwire.section import Section, Visibility
from kvwire.segment import REQUEST_ID_BYTES, Segment, SliceHeader, SliceKind, SliceTrailer
from kvwire.slice_io import Frame, SliceAssembler, check_bytes, most_bytes, payload_codec
from kvwire.v1 import sharer_pb2 as pb

if TYPE_CHECKING:
    from fuser import Bundle
    from kvwire.codec import Codec

Begin = Callable[[Coroutine[Any, Any, None]], concurrent.futures.Future[None]]
"""Starts work on the thread of a client."""
Part = SliceHeader | Segment | SliceTrailer

_SMALL_BYTES: Final = 4096
_SMALL_SLICE_BYTES: Final = 65_536
"""Messages up to this size, of slices that decode to no more than this, are handled on the event loop: a thread would
take longer to begin."""


class ReplyIntake:
    """Takes the messages of one Share reply in order. Not thread-safe; meant to take large ones off the event loop.

    Args:
        request: as it was sent.
        codec: the one asked for, padded if that was.
        places: index of each of the request's sections in the caller's list, which spans are made to name.
        device: where segments are put.
    """

    def __init__(
        self,
        request: ShareRequest,
        places: Sequence[int],
        bundle: Bundle,
        codec: Codec,
        limits: Limits,
        device: str = "cpu",
    ) -> None:
        self._request = request
        self._places = tuple(places)
        self._bundle = bundle
        self._codec = codec
        self._limits = limits
        self._device = device
        self._assembler: SliceAssembler | None = None
        self._finished = False

    def take(self, message: bytes) -> Sequence[Part]:
        """One serialised ShareResponse: the header, the segments that it completed, or the trailer.

        Raises:
            WireError: the slice cannot be used.
        """
        try:
            part = serde.share_response_from_proto(pb.ShareResponse.FromString(message), self._limits)
            return self._take(part)
        except DecodeError as error:
            raise BadHeader("a message that is no ShareResponse") from error
        except TooLarge as error:  # the cloud's doing, not the caller's
            raise BadPayload(error.detail) from error

    @property
    def arrived(self) -> float:
        """Share of the slice that arrived and decoded, 0 to 1."""
        return self._assembler.partial() if self._assembler else 0.0

    @property
    def payload_bytes(self) -> int:
        """Bytes of segments taken in."""
        return self._assembler.payload_bytes if self._assembler else 0

    def end(self) -> None:
        """The stream is over.

        Raises:
            BadPayload: before its trailer.
        """
        if not self._finished:
            raise BadPayload("the slice ended without a trailer")

    def _take(self, part: SliceHeader | Frame | SliceTrailer) -> Sequence[Part]:
        if self._finished:
            raise BadPayload("a message after the trailer")
        if isinstance(part, SliceHeader):
            if self._assembler is not None:
                raise BadPayload("a second header")
            check_header(part, self._request)
            check_specs(part, self._bundle, self._request.plan)
            self._assembler = SliceAssembler(
                part, self._codec, self._limits, self._device, self._request.max_bytes
            )
            spans = tuple((self._places[section], start, end) for section, start, end in part.spans)
            return [dataclasses.replace(part, spans=spans)]
        if self._assembler is None:
            raise BadPayload("a slice without a header")
        if isinstance(part, Frame):
            return self._assembler.add(part)
        self._assembler.finish(part)
        self._finished = True
        return [part]


def check_specs(header: SliceHeader, bundle: Bundle, plan: Plan) -> None:
    """Compare the segments a header announces with those that the bundle and the plan give.

    Raises:
        BadHeader: others, in another order, or of other shapes.
    """
    from fuser.slice_specs import most_positions, slice_specs

    shared = header.kind is SliceKind.SHARED
    if not shared and header.positions > most_positions(bundle, plan, header.kind):
        raise BadHeader("more positions than this bundle makes")
    dtype = header.specs[0].dtype if header.specs else "float32"
    if header.specs != slice_specs(bundle, header.kind, plan, header.positions, dtype):
        raise BadHeader("other segments than were asked for")


class SliceStream:
    """The parts of one slice as they arrive, verified and decoded, large ones off the loop. Close it or read it up.

    Until the header is here a call that failed may be tried again; each attempt has a request id of its own.
    """

    def __init__(
        self,
        channel: CloudChannel,
        sections: Sequence[Section],
        bundle: Bundle,
        kind: SliceKind,
        plan: Plan,
        max_bytes: int,
        deadline: Deadline,
        user_token: str | None = None,
    ) -> None:
        from fuser.slice_specs import slice_specs

        if kind not in bundle.kinds:
            raise InvalidRequest(f"this bundle takes no {kind} slices in")
        least = slice_specs(bundle, kind, plan, 1, "bfloat16")  # refuses what the bundle cannot do
        self.home = channel.home
        self._channel, self._bundle, self._limits, self._link = channel, bundle, channel.limits, channel.link
        self._codec = payload_codec(plan, CodecRegistry(bundle.codecs()).get(plan.codec))
        self._deadline, self._user_token = deadline, user_token
        self._kind, self._plan, self._max_bytes = kind, plan, max_bytes
        self._places = [i for i, s in enumerate(sections) if s.visibility is not Visibility.EDGE]
        self._sections = tuple(sections[i] for i in self._places)
        self._intake: ReplyIntake | None = None
        self._traffic, self._decode_s = Traffic(), 0.0
        self._limits.check_sections(self._sections)
        self._request()
        check_bytes(least, self._codec, max_bytes)
        self._parts = retried(self._once, deadline)

    @property
    def request_id(self) -> str:
        """Of the last attempt, in hex; empty before the first."""
        return self._traffic.request_id

    @property
    def connect_s(self) -> float:
        """Seconds that were waited for a connection, all attempts."""
        return self._traffic.connect_s

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
        self._traffic.request_id = request.request_id.hex()
        message = serde.share_request_to_proto(request).SerializeToString()
        if len(message) > self._limits.max_request_bytes:
            raise TooLarge("request bytes", len(message), self._limits.max_request_bytes)
        self._intake = intake = ReplyIntake(request, self._places, self._bundle, self._codec, self._limits)
        replies = self._channel.stream("Share", message, self._deadline, self._traffic, self._user_token)
        came: list[float] = []
        most, small = 0, True
        trailer: SliceTrailer | None = None
        try:
            async with contextlib.aclosing(replies):  # type: ignore[type-var]
                async for reply in replies:
                    came.append(self._traffic.received_at)
                    if small and len(reply) <= _SMALL_BYTES:
                        parts = intake.take(reply)
                    else:
                        parts = await asyncio.to_thread(intake.take, reply)
                    self._decode_s += time.monotonic() - came[-1]
                    for part in parts:
                        if isinstance(part, SliceTrailer):
                            trailer, end = part, came[-1]
                            # Of a shared slice the header comes before the cloud's work, of any other behind it.
                            worked_s = 0.0 if self._kind is SliceKind.SHARED else part.timings["prefill"]
                            began = came[0] - worked_s
                            self._link.slice_came(
                                part.payload_bytes,
                                began - self._traffic.sent_at,
                                end - began,
                                end - came[1],
                                part.timings,
                            )
                            continue
                        if isinstance(part, SliceHeader):
                            most = most_bytes(part.specs, self._codec)
                            small = part.raw_bytes <= _SMALL_SLICE_BYTES
                        yield part
        except DeadlineExceeded:
            if came:
                self._link.slice_late(most, time.monotonic() - came[0])
            raise
        intake.end()
        if trailer is not None:
            yield trailer  # once the cloud has closed the call without an error

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


class SharedSlice:
    """The parts of one slice: a header, segments, a trailer. Close it or read it to its end."""

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
