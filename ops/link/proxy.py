"""The proxy: every connection to it goes on to one address, as slowly as a link of the given shape would carry it.

What a link does to packets, loss and TCP's answer to it, is above a proxy's reach. TCP's own handshake takes a round
trip, as on a link; slow start does not happen, because to either end the proxy is near.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import math
import socket
import struct
from functools import partial
from typing import Final, Self

from ops.link.fault import Carrying, CutOff, Fault, Way
from ops.link.shape import Lane, Shape, lanes

logger = logging.getLogger(__name__)

_MAX_CONNECTIONS: Final = 256
_REMEMBERED: Final = 64
_CONNECT_S: Final = 10.0
_SEGMENT: Final = 1_448  # loopback would take 64 KiB at once, more than the buffers here
_RESET: Final = struct.pack("ii", 1, 0)


class LinkProxy:
    """A link from `listen` to `to`, both "host:port". Used within one event loop, as a context manager.

    async with LinkProxy("127.0.0.1:0", cloud, Shape(down_mbit=10, up_mbit=10, rtt_ms=40)) as link:
        ...  # connect to link.address instead of to the cloud
    """

    def __init__(self, listen: str, to: str, shape: Shape) -> None:
        """Raises ValueError: an address is not of the form host:port."""
        from edge_node.config import split_address

        self._listen, self._to = split_address(listen), split_address(to)
        self._shape = shape
        self._down, self._up = lanes(shape)
        self._connections: dict[asyncio.Task[None], Carrying] = {}
        self._fault: Fault | None = None
        self._to_break = 0.0
        self._open = asyncio.Event()
        self._open.set()
        self.accepted = 0
        """How many connections there were."""
        self.passages: collections.deque[Carrying] = collections.deque(maxlen=_REMEMBERED)
        """The latest of them."""
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    @property
    def shape(self) -> Shape:
        """What the link is like now."""
        return self._shape

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes that entered the link since its shape was set: down, up."""
        return self._down.carried, self._up.carried

    @property
    def address(self) -> str:
        """Where it listens ("host:port"). Raises RuntimeError before `start`."""
        if self._listener is None:
            raise RuntimeError("the link is not started")
        host, port = self._listener.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address is taken or not ours.
        """
        host, port = self._listen
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=_MAX_CONNECTIONS)
        self._listener.setblocking(False)
        _narrow(self._listener, self._up, self._down)
        self._accepting = asyncio.create_task(self._accept(self._listener))

    async def reshape(self, shape: Shape) -> None:
        """Make it another link: connections through the old one end."""
        await self._drop()
        self._shape = shape
        self._down, self._up = lanes(shape)
        if self._listener is not None:
            _narrow(self._listener, self._up, self._down)

    def break_new(self, fault: Fault | None, most: float = math.inf) -> None:
        """Let it happen to each of the next `most` connections; None is nothing."""
        self._fault, self._to_break = fault, most

    def strike(self, fault: Fault) -> None:
        """Let it happen to all connections that there are, `fault.at` bytes from now on."""
        for passage in self._connections.values():
            passage.strike(fault)

    def silence(self, silent: bool) -> None:
        """Take bytes and carry none, or go on."""
        if silent:
            self._open.clear()
        else:
            self._open.set()

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
        if self._listener is not None:
            self._listener.close()
        await self._drop()

    async def _drop(self) -> None:
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(set(self._connections))

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(listener)
            if len(self._connections) >= _MAX_CONNECTIONS:
                logger.warning("more than %d connections: one was refused", _MAX_CONNECTIONS)
                _reset(near)
                continue
            passage = Carrying(self._fault if self._to_break > 0 else None, self._open)
            self._to_break -= 1
            self.accepted += 1
            self.passages.append(passage)
            task = asyncio.create_task(self._connection(near, passage))
            self._connections[task] = passage
            task.add_done_callback(lambda done: self._connections.pop(done, None))

    async def _connection(self, near: socket.socket, passage: Carrying) -> None:
        """Both directions until both have ended. A side that breaks breaks the other."""
        far: socket.socket | None = None
        down, up = self._down, self._up
        try:
            await asyncio.sleep(
                self._shape.rtt_ms / 1_000
            )  # the handshake of TCP, which loopback did in no time
            far = await self._connected()
            await passage.begin()
            async with asyncio.TaskGroup() as both:
                both.create_task(_carry(near, far, up, passage, "up"))
                both.create_task(_carry(far, near, down, passage, "down"))
        except* CutOff:
            pass
        except* OSError as broken:
            logger.info("a connection broke: %s", broken.exceptions[0])
            _reset(near)
            if far is not None:
                _reset(far)
        finally:
            near.close()
            if far is not None:
                far.close()

    async def _connected(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        host, port = self._to
        family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
        far = socket.socket(family, kind, protocol)
        try:
            far.setblocking(False)
            _narrow(far, self._down, self._up)
            async with asyncio.timeout(_CONNECT_S):
                await loop.sock_connect(far, address)
        except BaseException:
            far.close()
            raise
        return far


async def _carry(source: socket.socket, sink: socket.socket, lane: Lane, passage: Carrying, way: Way) -> None:
    """One direction of a connection, to the end of what the source sends; then the sink is told that it ended."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    held, room = 0, asyncio.Event()

    async def depart() -> None:
        nonlocal held
        data = b"?"
        while data:
            while held >= lane.capacity:
                room.clear()
                await room.wait()
            since = loop.time() + (wait := lane.wait_s(loop.time()))
            if wait > 0:
                await asyncio.sleep(wait)
            try:
                data = source.recv(lane.piece)
            except BlockingIOError:
                data = await loop.sock_recv(source, lane.piece)
                since = loop.time()
            held += len(data)
            under_way.put_nowait((lane.enter(len(data), since), data))

    async def arrive() -> None:
        nonlocal held
        goes_on, send = True, partial(loop.sock_sendall, sink)
        while True:
            due, data = await under_way.get()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            if not data:
                await passage.end(way)
                if goes_on:
                    sink.shutdown(socket.SHUT_WR)
                return
            if goes_on and not (goes_on := await passage.carry(way, data, send)):
                sink.shutdown(socket.SHUT_WR)
            held -= len(data)
            room.set()

    async with asyncio.TaskGroup() as ends:
        ends.create_task(depart())
        ends.create_task(arrive())


def _narrow(end: socket.socket, received: Lane, sent: Lane) -> None:
    """Small buffers, before anything is connected: a window that was open wider would be cut off, and stall."""
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received.buffer)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sent.buffer)


def _reset(end: socket.socket) -> None:
    """Close so that the peer sees a connection that broke, not one that ended."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    end.close()
