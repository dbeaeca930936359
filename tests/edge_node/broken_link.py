"""A TCP proxy that breaks connections where it is told to, on a thread of its own."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from tests.edge_node.sharer_server import wait_until

Way = Literal["down", "up"]
How = Literal["close", "reset", "damage"]


@dataclass(frozen=True)
class Fault:
    """What happens to a connection once `at` bytes went that way."""

    way: Way
    at: int
    how: How


class BrokenLink:
    """Carries bytes to a port of this machine and back."""

    def __init__(self, port: int) -> None:
        self._fault_of: Callable[[int], Fault | None] = lambda number: None
        self.carried: list[dict[str, int]] = []
        """Bytes of each connection so far."""
        self._to = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = self._run(asyncio.start_server(self._connection, "127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def break_all(self, fault: Fault) -> None:
        """Every connection from now on."""
        self._fault_of = lambda number: fault

    def break_next(self, fault: Fault) -> None:
        """Only the next one."""
        next_one = len(self.carried)
        self._fault_of = lambda number: fault if number == next_one else None

    def silence(self, silent: bool) -> None:
        """Take bytes and carry none, or go on."""
        self._loop.call_soon_threadsafe(self._open.clear if silent else self._open.set)
        wait_until(lambda: self._open.is_set() is not silent)

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _connection(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self._tasks.add(task := asyncio.current_task())  # type: ignore[arg-type]
        fault = self._fault_of(len(self.carried))
        self.carried.append(carried := {"down": 0, "up": 0})
        far, forth = await asyncio.open_connection("127.0.0.1", self._to)

        async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str) -> None:
            while True:
                at = fault.at - carried[way] if fault is not None and fault.way == way else -1
                if fault is not None and at == 0 and fault.how != "damage":
                    if fault.how == "reset":
                        linger = struct.pack("ii", 1, 0)
                        back.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    raise ConnectionError
                data = bytearray(await source.read(at if at > 0 else 65_536))
                await self._open.wait()
                if not data:
                    raise ConnectionError
                if fault is not None and at == 0:
                    data[0] ^= 0x41
                carried[way] += len(data)
                sink.write(data)
                await sink.drain()

        try:
            with contextlib.suppress(ExceptionGroup):
                async with asyncio.TaskGroup() as both:
                    both.create_task(carry(near, forth, "up"))
                    both.create_task(carry(far, back, "down"))
        finally:
            back.close()
            forth.close()
            self._tasks.discard(task)  # type: ignore[arg-type]

    def _run(self, work):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


@contextlib.contextmanager
def broken_link(port: int) -> Iterator[BrokenLink]:
    """A link to a port of this machine."""
    link = BrokenLink(port)
    try:
        yield link
    finally:
        link.close()
