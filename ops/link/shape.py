"""What a link is like: its rates, its round trip, and when a byte that enters it arrives."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_BYTES_PER_S: Final = 125_000  # of 1 Mbit/s
_QUEUE_S: Final = 0.025
"""What waits to enter the link, as in a router with a short queue; longer than an event loop oversleeps."""
_PIECE_S: Final = 0.001
_PIECE: Final = (1_448, 65_536)  # an Ethernet packet's payload; what one system call moves well
_BUFFER: Final = (8_192, 4 << 20)


class NoLoss(ValueError):
    """Lost packets were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a link is like.

    down_mbit, up_mbit: 10^6 bits a second towards the client and away from it.
    rtt_ms: the round trip, half of it each way.
    jitter_ms: each piece takes up to so much longer, drawn anew; those behind it wait for it.
    """

    down_mbit: float
    up_mbit: float
    rtt_ms: float = 0.0
    jitter_ms: float = 0.0

    def __post_init__(self) -> None:
        for rate in (self.down_mbit, self.up_mbit):
            if not (math.isfinite(rate) and rate > 0):
                raise ValueError(f"a link of {rate} Mbit/s: a rate is above 0")
        for delay in (self.rtt_ms, self.jitter_ms):
            if not (math.isfinite(delay) and delay >= 0):
                raise ValueError(f"a delay of {delay} ms: it is 0 or above")

    def __str__(self) -> str:
        rate = f"{self.down_mbit:g}" + ("" if self.up_mbit == self.down_mbit else f"/{self.up_mbit:g}")
        return f"{rate} Mbit/s, {self.rtt_ms:g} ms"


def shapes(rates_mbit: Iterable[float], rtts_ms: Iterable[float]) -> list[Shape]:
    """A link for every rate, the same both ways, at every round trip: one round trip after the other."""
    rates = tuple(rates_mbit)
    return [Shape(down_mbit=rate, up_mbit=rate, rtt_ms=rtt) for rtt in rtts_ms for rate in rates]


def check_loss(percent: float) -> None:
    """Refuse to lose packets.

    Raises:
        NoLoss: more than 0 is asked for. A TCP proxy sits above the packets, where none can be lost: a byte that it
            drops is gone for good.
    """
    if percent != 0:
        raise NoLoss(
            f"loss {percent:g}: a TCP proxy cannot lose packets; use 0 here, and for loss run the two nodes on two "
            "machines (or network namespaces) with `tc qdisc add dev IF root netem loss P% delay Xms rate R`"
        )


class Lane:
    """One direction of a link, shared by all its connections. It takes no clock: `now` is the caller's, in seconds.

    Attributes:
        piece: bytes that enter at once.
        capacity: bytes of one connection that may be under way: what the delay and the queue hold.
        buffer: bytes of the kernel's buffer before it, so that a sender soon feels a link that is full.
        carried: bytes that entered.
    """

    def __init__(self, mbit: float, delay_s: float, jitter_s: float = 0.0) -> None:
        self._bytes_per_s = mbit * _BYTES_PER_S
        self._delay_s, self._jitter_s = delay_s, jitter_s
        self._free = 0.0
        self.piece = _between(self._bytes_per_s * _PIECE_S, _PIECE)
        self.capacity = 2 * self.piece + math.ceil(self._bytes_per_s * (delay_s + _QUEUE_S))
        self.buffer = _between(self._bytes_per_s * _QUEUE_S, _BUFFER)
        self.carried = 0

    def wait_s(self, now: float) -> float:
        """How long the next piece has to wait until there is room in the queue."""
        return max(0.0, self._free - _QUEUE_S - now)

    def enter(self, size: int, since: float) -> float:
        """Put bytes in, behind all before them; when the last of them arrives at the other end.

        since: when they stood at the link's door; earlier than now, where a process that overslept fetches them late.
        """
        self._free = max(self._free, since) + size / self._bytes_per_s
        self.carried += size
        return self._free + self._delay_s + (random.uniform(0.0, self._jitter_s) if self._jitter_s else 0.0)


def lanes(shape: Shape) -> tuple[Lane, Lane]:
    """Down and up, empty."""
    delay_s, jitter_s = shape.rtt_ms / 2_000, shape.jitter_ms / 1_000
    return Lane(shape.down_mbit, delay_s, jitter_s), Lane(shape.up_mbit, delay_s, jitter_s)


def _between(value: float, bounds: tuple[int, int]) -> int:
    return min(max(int(value), bounds[0]), bounds[1])
