"""Connection: one channel that all calls share, renewed when it fails, and a circuit that opens when that is slow.

Four states, and none: `Connecting`, `Connected`, `Away`, `Closed`. Every caller waits for one attempt, each no longer
than its own deadline. An attempt that fails at once may be made again; one that was slow to fail opens the circuit:
calls then fail at once, until a task in the background has found the cloud. While a connection is silent the calls that
wait on it have the cloud asked for a sign of life, one question for all of them; where none comes they end at once and
the circuit opens. A call that met its deadline before that, without a byte back, leaves a suspicion: the next one
begins only after the cloud has answered something small.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from edge_node.bounds import Deadline
from kvwire.errors import Cancelled, DeadlineExceeded, Draining, KvwireError, Unreachable, entry_of

T = TypeVar("T")
CONNECT_S: Final = 5.0
"""The longest that an attempt to connect may take."""
_QUICK_S: Final = 1.0
_ANSWER_S: Final = 2.0
_SILENT_S: Final = 2.0
_FIRST_PROBE_S: Final = 0.5
_MOST_PROBE_S: Final = 10.0
_HEALTH: Final = "/grpc.health.v1.Health/Check"
_SERVING: Final = b"\x08\x01"
"""HealthCheckResponse of the status SERVING."""
_LATE: Final = (grpc.StatusCode.DEADLINE_EXCEEDED,)
"""Of a question beside calls: one that cannot be asked, as when the cloud takes no new calls, says nothing of them."""
_SILENT: Final = (grpc.StatusCode.UNAVAILABLE, *_LATE)


class CloudAway(Unreachable):
    """The circuit is open: whether to try again is for the probe to find out, not for the call."""

    @property
    def retryable(self) -> bool:
        """Never: the wait would be for nothing."""
        return False


class Unanswered(DeadlineExceeded):
    """The deadline passed without a byte back: the cloud may be slow, or the connection dead."""


@dataclass(eq=False, slots=True)
class Connecting:
    """An attempt is under way. It sets the next state itself."""

    attempt: asyncio.Task[None]


@dataclass(eq=False, slots=True)
class Connected:
    """A channel to give out. The last user of one that was given up closes it.

    heard: when something last came over it, on the monotonic clock. check: for a sign of life, the latest.
    """

    channel: grpc.aio.Channel
    users: int = 0
    heard: float = 0.0
    check: asyncio.Task[bool] | None = None

    async def close(self) -> None:
        """Calls in flight are cancelled."""
        if self.check is not None and not self.check.done():
            self.check.cancel()
            await asyncio.wait({self.check})
        await self.channel.close()


@dataclass(eq=False, slots=True)
class Away:
    """The circuit is open; `probe` looks for the cloud."""

    why: str
    probe: asyncio.Task[None]


@dataclass(eq=False, slots=True)
class Closed:
    """For good."""


class Connection:
    """Used within one event loop.

    Of several addresses the first is taken that answers and serves; another is looked for when that one fails, or says
    that it is going away.

    Args:
        open_channel: makes a channel to an address; what it raises is told to every call that waits for it.
        addresses: at least one.
    """

    def __init__(
        self, open_channel: Callable[[str], Awaitable[grpc.aio.Channel]], addresses: Sequence[str]
    ) -> None:
        self._open_channel, self._addresses = open_channel, tuple(addresses)
        self._address = " or ".join(addresses)
        self._state: Connecting | Connected | Away | Closed | None = None
        self.last = "NONE"
        """How the last call ended: "OK" or the reason of its error; "NONE" before there was any."""
        self._in_use: set[Connected] = set()

    @property
    def state(self) -> str:
        """ "none", "connecting", "connected", "away" (the circuit is open) or "closed"; for any thread."""
        return "none" if self._state is None else type(self._state).__name__.lower()

    @property
    def current(self) -> Connected | None:
        """The connection that the next call will use, if it is there; a later one is another object."""
        held = self._state
        if isinstance(held, Connected) and held.channel.get_state() is grpc.ChannelConnectivity.READY:
            return held
        return None

    @contextlib.asynccontextmanager
    async def lease(self, deadline: Deadline) -> AsyncIterator[Connected]:
        """A channel for one call. An `Unreachable` or `Unanswered` that the call ends with is heeded.

        Raises:
            Unreachable, AccessDenied: there is none. DeadlineExceeded: not in time. Cancelled: closed meanwhile.
        """
        try:
            async with self._leased(deadline) as held:
                yield held
            self.last = "OK"
        except KvwireError as error:
            self.last = entry_of(type(error)).reason
            raise

    @contextlib.asynccontextmanager
    async def _leased(self, deadline: Deadline) -> AsyncIterator[Connected]:
        held = await self._connected(deadline)
        deadline.check()
        self._take(held)
        try:
            yield held
        except Unreachable:
            self._give_up(held)
            raise
        except Draining:
            if len(self._addresses) > 1:
                self._give_up(held)
            raise
        except Unanswered:
            if self._state is held:
                self._begin(suspect=held)
            raise
        finally:
            await self._release(held)

    async def reply(self, held: Connected, coming: Awaitable[T]) -> T:
        """What is awaited from the cloud over a leased channel.

        Raises:
            CloudAway: nothing came over the connection for so long, and no answer to whether anybody is there.
        """
        waiting = asyncio.ensure_future(coming)
        try:
            while not (await asyncio.wait({waiting}, timeout=_SILENT_S))[0]:
                if time.monotonic() - held.heard < _SILENT_S:
                    continue
                if held.check is None or held.check.done():
                    held.check = asyncio.create_task(_answers(held.channel, CONNECT_S, silent=_LATE))
                check = held.check  # another call may ask anew before this one goes on
                await asyncio.wait({waiting, check}, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    break
                if check.result():
                    held.heard = time.monotonic()
                # Else another call heard something meanwhile.
                elif time.monotonic() - held.heard >= _SILENT_S:
                    raise self._lost(held)
            held.heard = time.monotonic()
            return waiting.result()
        finally:
            if not waiting.done():
                waiting.cancel()
                await asyncio.wait({waiting})

    def _lost(self, held: Connected) -> CloudAway:
        """From `Connected` to `Away`, for the first call that finds it out."""
        why = f"{self._address} fell silent and answers no call"
        if self._state is held:
            self._become(Away(why, asyncio.create_task(self._probe())))
        return CloudAway(why)

    async def close(self) -> None:
        """End the attempt or the probe, and close the channel: calls in flight are cancelled."""
        state, self._state = self._state, Closed()
        if isinstance(state, Connecting | Away):
            task = state.attempt if isinstance(state, Connecting) else state.probe
            task.cancel()
            await asyncio.wait({task})
        for held in self._in_use | ({state} if isinstance(state, Connected) else set()):
            await held.close()

    async def _connected(self, deadline: Deadline) -> Connected:
        while True:
            state = self._state
            if isinstance(state, Closed):
                raise Cancelled("the client is closed")
            if isinstance(state, Away):
                raise CloudAway(state.why)
            if isinstance(state, Connected):
                if state.channel.get_state() is grpc.ChannelConnectivity.READY:
                    return state
                self._give_up(state)  # gRPC would connect again, for as long as the call may take
                if state.users == 0:
                    await state.close()
            elif state is None:
                self._begin(suspect=None)
            else:
                await asyncio.wait({state.attempt}, timeout=deadline.check())
                if not state.attempt.done():
                    raise DeadlineExceeded(f"no connection to {self._address} before the deadline")
                if not state.attempt.cancelled():
                    state.attempt.result()

    def _begin(self, suspect: Connected | None) -> None:
        if suspect is not None:
            self._take(suspect)
        attempt = asyncio.create_task(self._attempt(suspect))
        attempt.add_done_callback(_seen)
        self._state = Connecting(attempt)

    async def _attempt(self, suspect: Connected | None) -> None:
        """From `Connecting` to another state. Raises what the calls that wait are told."""
        began = time.monotonic()
        try:
            if suspect is not None and await _answers(suspect.channel, _ANSWER_S):
                self._become(suspect)
                return
            self._become(Connected(await self._opened(ask=suspect is not None)))
        except Unreachable as error:
            if time.monotonic() - began < _QUICK_S or isinstance(self._state, Closed):
                self._become(None)
                raise
            self._become(Away(str(error), asyncio.create_task(self._probe())))
            raise CloudAway(str(error)) from error
        except BaseException:
            self._become(None)
            raise
        finally:
            if suspect is not None:
                await self._release(suspect)

    async def _probe(self) -> None:
        """From `Away` to another state, as soon as the cloud answers. What is wrong with it is for a call to say."""
        wait_s = _FIRST_PROBE_S
        while True:
            await asyncio.sleep(random.uniform(wait_s / 2, wait_s))
            wait_s = min(2 * wait_s, _MOST_PROBE_S)
            try:
                found: Connected | None = Connected(await self._opened(ask=True))
            except Unreachable:
                continue
            except Exception:
                found = None
            self._become(found)
            return

    async def _opened(self, ask: bool) -> grpc.aio.Channel:
        """A channel that is connected and, where `ask`, over which the cloud has answered. Raises KvwireError."""
        several, failed = len(self._addresses) > 1, list[KvwireError]()
        left, tries = list(self._addresses), list[asyncio.Task[grpc.aio.Channel]]()
        try:
            while left or tries:
                if left:  # each has the whole time, and the next one does not wait for it
                    tries.append(asyncio.create_task(self._opened_to(left.pop(0), ask, serving=several)))
                turn_s = CONNECT_S / len(self._addresses) if left else None
                done, _ = await asyncio.wait(tries, timeout=turn_s, return_when=asyncio.FIRST_COMPLETED)
                for one in [one for one in tries if one in done]:
                    tries.remove(one)
                    try:
                        return one.result()
                    except KvwireError as error:
                        failed.append(error)
        finally:
            await _dropped(tries)
        if len(failed) == 1:
            raise failed[0]
        # Where one is only away, the others may be right: that is for the probe to find out.
        away = [error for error in failed if isinstance(error, Unreachable)]
        raise Unreachable("; ".join(error.detail for error in failed)) if away else failed[0]

    async def _opened_to(self, address: str, ask: bool, serving: bool) -> grpc.aio.Channel:
        channel: grpc.aio.Channel | None = None
        try:
            async with asyncio.timeout(CONNECT_S):
                channel = await self._open_channel(address)
                await _ready(channel)
                if serving and await _health(channel, CONNECT_S) != _SERVING:
                    raise Unreachable(f"{address} takes no calls now")
                if ask and not serving and not await _answers(channel, CONNECT_S):
                    raise Unreachable(f"{address} takes connections and answers no call")
                return channel
        except BaseException as error:
            if channel is not None:
                await channel.close()
            if isinstance(error, TimeoutError):
                raise Unreachable(f"no answer from {address} within {CONNECT_S:.1f} s") from error
            raise

    def _become(self, state: Connected | Away | None) -> None:
        if not isinstance(self._state, Closed):
            self._state = state

    def _give_up(self, held: Connected) -> None:
        if self._state is held:
            self._state = None

    def _take(self, held: Connected) -> None:
        held.users += 1
        self._in_use.add(held)

    async def _release(self, held: Connected) -> None:
        held.users -= 1
        if held.users == 0:
            self._in_use.discard(held)
            if held is not self._state:
                await held.close()


async def _ready(channel: grpc.aio.Channel) -> None:
    """Until it is connected. Raises Unreachable where it cannot be, at the first failure."""
    while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            raise Unreachable("the connection broke after the first handshake")
        await channel.wait_for_state_change(state)


async def _dropped(tries: Sequence[asyncio.Task[grpc.aio.Channel]]) -> None:
    """End attempts that are not needed; of one that had succeeded, the channel."""
    for one in tries:
        one.cancel()
    for channel in await asyncio.gather(*tries, return_exceptions=True):
        if not isinstance(channel, BaseException):
            await channel.close()


async def _answers(
    channel: grpc.aio.Channel, within_s: float, silent: Sequence[grpc.StatusCode] = _SILENT
) -> bool:
    """Whether anything comes back, a refusal as well; `silent` are the codes that say that nothing does."""
    return await _health(channel, within_s) not in silent


async def _health(channel: grpc.aio.Channel, within_s: float) -> bytes | grpc.StatusCode:
    """The reply to a health check, or the status that it failed with."""
    check: Any = channel.unary_unary(_HEALTH)
    try:
        reply: bytes = await check(b"", timeout=within_s)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return reply


def _seen(attempt: asyncio.Task[None]) -> None:
    """Its error is told to those who wait; nobody may."""
    if not attempt.cancelled():
        attempt.exception()
