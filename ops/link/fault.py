"""What can happen to a connection that a proxy carries, at a byte that is told: it breaks, hangs, or tells lies."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

Way = Literal["down", "up"]
"""Towards the client, or away from it."""
How = Literal["close", "reset", "hang", "half", "stall", "linger", "damage", "drop", "repeat"]
HOWS: Final = get_args(How)
_LIES: Final = ("damage", "drop", "repeat")


class CutOff(Exception):
    """The connection is over, and both ends are told so in order."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a connection once `at` bytes went `way`.

    Attributes:
        how: "close" and "reset" end it, "hang" carries nothing more either way and tells nobody; "half" ends this way
            alone; "stall" carries nothing for `seconds`; "linger" tells the end of this way only after `seconds`;
            "damage" changes `size` bytes, "drop" loses them, "repeat" sends them twice.
    """

    way: Way
    at: int
    how: How
    seconds: float = 0.0
    size: int = 1


class Carrying:
    """One connection on its way through a proxy. `carried`: bytes that went each way."""

    def __init__(self, fault: Fault | None, open_: asyncio.Event) -> None:
        self.carried: dict[Way, int] = {"down": 0, "up": 0}
        self._fault, self._open = fault, open_
        self._hangs, self._over = False, set[Way]()

    def strike(self, fault: Fault) -> None:
        """Let it happen `fault.at` bytes from now on."""
        self._fault = dataclasses.replace(fault, at=self.carried[fault.way] + fault.at)

    async def begin(self) -> None:
        """Before a byte goes either way. Raises as `carry`."""
        if self._fault is not None and self._fault.at <= 0 and self._fault.how not in _LIES:
            await self._happen(self._fault)

    async def carry(self, way: Way, data: bytes, send: Callable[[bytes], Awaitable[None]]) -> bool:
        """Send what is to be sent of `data`; whether this way goes on.

        Raises:
            CutOff, ConnectionResetError: the connection ends.
        """
        await self._open.wait()
        fault = self._fault
        at = len(data) if fault is None or fault.way != way else fault.at - self.carried[way]
        if fault is not None and fault.way == way and fault.how in _LIES and 0 <= at < len(data):
            self._fault = None
            hit = data[at : at + fault.size]
            lie = {"damage": bytes(byte ^ 0x41 for byte in hit), "drop": b"", "repeat": hit + hit}[fault.how]
            await self._send(way, data[:at] + lie + data[at + len(hit) :], send)
        elif (
            fault is not None and fault.way == way and fault.how not in (*_LIES, "linger") and at <= len(data)
        ):
            await self._send(way, data[: max(0, at)], send)
            await self._happen(fault)
            if way not in self._over:
                await self._send(way, data[max(0, at) :], send)
        else:
            await self._send(way, data, send)
        return way not in self._over

    async def end(self, way: Way) -> None:
        """The source has no more to send; what is told of that waits for this."""
        fault = self._fault
        if fault is not None and fault.how == "linger" and fault.way == way:
            await asyncio.sleep(fault.seconds)
        if self._hangs:
            await asyncio.Event().wait()

    async def _happen(self, fault: Fault) -> None:
        self._fault = None
        if fault.how == "close":
            raise CutOff
        if fault.how == "reset":
            raise ConnectionResetError("reset, as was told")
        if fault.how == "hang":
            self._hangs = True
        elif fault.how == "half":
            self._over.add(fault.way)
        elif fault.how == "stall":
            await asyncio.sleep(fault.seconds)

    async def _send(self, way: Way, data: bytes, send: Callable[[bytes], Awaitable[None]]) -> None:
        if self._hangs:
            await asyncio.Event().wait()
        if data:
            await send(data)
            self.carried[way] += len(data)
