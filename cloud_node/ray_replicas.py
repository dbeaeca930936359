"""The replicas of a cloud node behind one handle: how long Ray is waited for, and what is told when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

from cloud_node.call import Part, RelayCall, ShareCall
from cloud_node.config import CloudConfig
from cloud_node.control import Control
from cloud_node.deployment import Ray, ReplicasLost, first_line, told
from kvwire.errors import Busy, KvwireError
from kvwire.messages import Description, RelayReply

logger = logging.getLogger(__name__)

T = TypeVar("T")

_STATUS_S: Final = 3.0
# Serve is not on the way of calls: its silence ends none of them, and one that hung for half a minute is heard again.
# Ray itself ends a process after 60 s without its GCS, in no order at all.
_SILENT_S: Final = 45.0
_STOP_S: Final = 5.0
_LOADING_POLL_S: Final = 0.1
_POLL_S: Final = 0.2
_ROOM: Final = "where the machine is only busy, raise in cloud.toml"


class RayReplicas:
    """The replicas of one cloud node, behind a streaming handle. No wait on Ray is without a time limit, but for
    the router's first look at a new replica (docs/adr/0025-parts-come-over-serves-own-grpc.md)."""

    def __init__(self, config: CloudConfig) -> None:
        self._config = config
        self._control = Control()
        self._ray = Ray(config)
        self._handle: Any = None
        self._down = asyncio.Event()  # no replica is up, as far as is known
        self._looked_s = self._silent_s = 0.0
        self._asking: asyncio.Future[int] | None = None
        self._running = 0

    async def start(self) -> None:
        """Start Ray or attach to a cluster, deploy, and wait until every replica has loaded its model.

        Raises:
            RuntimeError: Ray or a replica could not start in time, or ended meanwhile.
            OSError: the token file cannot be read.
        """
        limits, began_s = self._config.ray, time.monotonic()
        logger.info("starting Ray, then loading the Sharer: this may take a minute")
        self._ray.prepare()
        waiting = f"Ray did not start in {limits.start_timeout_s:g} s, twice; {_ROOM} `[ray] start_timeout_s`"
        try:
            await self._control.call(self._ray.connect, 2 * limits.start_timeout_s)
            waiting = (
                f"the replicas were not ready in {limits.load_timeout_s:g} s; {_ROOM} `[ray] load_timeout_s`"
            )
            async with asyncio.timeout(limits.load_timeout_s):
                self._handle = await self._call(self._ray.deploy, limits.load_timeout_s)
                while await self._call(self._ray.up, limits.load_timeout_s) < self._config.sharer.replicas:
                    await asyncio.sleep(_LOADING_POLL_S)
        except TimeoutError:
            raise RuntimeError(waiting) from None
        except RuntimeError:
            raise
        except Exception as error:  # Ray's own, of many kinds and lines
            raise RuntimeError(f"Ray: {first_line(error)}") from None
        self._looked_s = time.monotonic()
        logger.info("loaded the Sharer in %.0f s", self._looked_s - began_s)

    async def describe(self) -> Description:
        """What the replicas can do; the log says where one computes. Raises KvwireError as `share` does."""
        try:
            async with asyncio.timeout(self._config.ray.load_timeout_s):
                description: Description = await self._handle.describe.remote()
                where: str = await self._handle.where.remote()
        except Exception as error:
            raise self._told(error) from None
        logger.info("the Sharer %s computes on %s", description.sharer.name, where)
        return description

    async def share(self, call: ShareCall, timeout_s: float) -> AsyncIterator[Part]:
        """The parts of one slice. Closing the iterator, or cancelling its task, stops the replica.

        Raises:
            KvwireError: Busy when the queue is full or a replica is gone; else what the replica told.
        """
        response = self._handle.options(stream=True).share.remote(call, timeout_s)
        ended = False
        try:
            batch = await self._first(anext(response, None))
            while batch is not None:
                for part in batch:
                    if isinstance(part, KvwireError):
                        raise part
                    yield part
                batch = await anext(response, None)
            ended = True
        except Exception as error:
            raise self._told(error) from None
        finally:
            if not ended:
                _cancel(response)

    async def relay(self, call: RelayCall, timeout_s: float) -> RelayReply:
        """The Sharer's own answer. Raises KvwireError as `share` does."""
        response = self._handle.relay.remote(call, timeout_s)
        try:
            reply: RelayReply | KvwireError = await self._first(response)
        except Exception as error:
            _cancel(response)
            raise self._told(error) from None
        except asyncio.CancelledError:
            _cancel(response)
            raise
        if isinstance(reply, KvwireError):
            raise reply
        return reply

    async def running(self) -> int:
        """How many replicas can take calls, as Serve told last.

        Calls that wait end with Busy where it tells of none, or where they are lost.

        Raises:
            ReplicasLost: the Ray started here is dead, or Serve has not answered for long.
        """
        if self._asking is None:  # one that is late counts when it comes, or a slow Serve would seem dead
            self._asking = asyncio.ensure_future(self._call(self._ray.up, _SILENT_S))
            self._asking.add_done_callback(_heed)
        asking = self._asking
        await asyncio.wait({asking}, timeout=_STATUS_S)
        if not asking.done():
            return self._silent(TimeoutError("no answer"))
        self._asking = None
        try:
            running = asking.result()
        except ReplicasLost:
            self._down.set()
            raise
        except Exception as error:
            return self._silent(error)
        self._looked_s, self._silent_s = time.monotonic(), 0.0
        self._running = running
        if running and self._down.is_set():
            logger.warning("a replica is up again")
            self._down.clear()
        elif not running and not self._down.is_set():
            logger.error("no replica is up")
            self._down.set()
        return running

    def _silent(self, error: Exception) -> int:
        """How many replicas to believe in after Serve has said nothing of them once more. Raises ReplicasLost."""
        now = time.monotonic()
        # One look counts for no more than it may take: this process itself may have been stopped meanwhile.
        self._silent_s += min(now - self._looked_s, 2 * _STATUS_S)
        self._looked_s = now
        logger.error("%s while asking Ray Serve, silent for %.0f s", type(error).__name__, self._silent_s)
        if self._silent_s > _SILENT_S:
            self._down.set()
            told = f"Ray Serve has told of no replica for {self._silent_s:.0f} s"
            raise ReplicasLost(f"{told}: {first_line(error)}") from None
        return self._running

    async def stop(self) -> None:
        """Stop the replicas, and Ray where `start` started it: in order where Ray still answers, else by force."""
        self._ray.stopping = True
        abandoned = False  # left hanging in this process
        try:
            self._ray.check_processes()
            await self._control.call(self._ray.shut_down, _STOP_S)
        except Exception as error:
            abandoned = True
            logger.error("%s while stopping Ray: it is killed", type(error).__name__)
        finally:
            self._ray.clean_up(spare_children=abandoned)

    async def _call(self, function: Callable[[], T], timeout_s: float) -> T:
        """A call to Ray, which nobody waits for any longer when a process of the Ray started here is gone."""
        call = asyncio.ensure_future(self._control.call(function, timeout_s))
        try:
            while not call.done():
                self._ray.check_processes()
                await asyncio.wait({call}, timeout=_POLL_S)
            return call.result()
        finally:
            call.cancel()

    async def _first(self, answer: Awaitable[T]) -> T:
        """The first that a replica says; Busy as soon as none is up that could."""
        waiting, down = asyncio.ensure_future(answer), asyncio.ensure_future(self._down.wait())
        waiting.add_done_callback(_heed)
        try:
            await asyncio.wait({waiting, down}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Busy(self._config.sharer.retry_after_s)
            return waiting.result()
        finally:
            waiting.cancel()
            down.cancel()

    def _told(self, error: Exception) -> KvwireError:
        return told(error, self._config.sharer.retry_after_s)


def _heed(answer: asyncio.Future[Any]) -> None:
    """Take note of a failure that came when nobody waited any more, or asyncio would write it to the log."""
    if not answer.cancelled():
        answer.exception()


def _cancel(response: Any) -> None:
    """Cancel a call; one that failed in the meantime would raise its failure here."""
    with contextlib.suppress(Exception):
        response.cancel()
