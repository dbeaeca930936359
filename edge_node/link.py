"""The running estimate of the link to the cloud, from the round trips and slices of real calls.

Three numbers: the round trip, the bandwidth down, and the seconds of the cloud's own work. Each is an exponentially
weighted mean, in logarithms, of medians of the last three samples: one outlier moves nothing, two in a row are
believed.

A slice too small to take measurable time says only that the link has at least its rate; a slice that came too late says
that it has at most that. Either counts where it contradicts the estimate. An estimate that nothing has confirmed for a
minute is forgotten, so that a link that was once slow is tried again.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

_WEIGHT: Final = 0.3  # of a new median
_SAMPLES: Final = 3
_FRESH_S: Final = 60.0
_NOISE_S: Final = 0.002  # and a tenth of the round trip: less than that is no measured time
_NOISE_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of the link; None where nothing is.

    bandwidth_bytes_per_s: from cloud to edge. rtt_s: from a request to the first message of its reply, less the cloud's
    queue. cloud_s: queue, prefill and encoding of a slice.
    """

    bandwidth_bytes_per_s: float | None = None
    rtt_s: float | None = None
    cloud_s: float | None = None

    def seconds(self, size: int) -> float | None:
        """From the request to the end of a slice of `size` payload bytes; None where something is not known."""
        if self.bandwidth_bytes_per_s is None or self.rtt_s is None or self.cloud_s is None:
            return None
        return self.rtt_s + self.cloud_s + size / self.bandwidth_bytes_per_s

    def to_dict(self) -> dict[str, float | None]:
        """Plain JSON values, one for each attribute."""
        return asdict(self)


class Link:
    """Samples in, an estimate out. Samples come from one thread; the estimate may be read from any.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rtt, self._cloud, self._bandwidth = (_Running(clock) for _ in range(3))

    @property
    def estimate(self) -> Estimate:
        """What is known now."""
        return Estimate(self._bandwidth.value, self._rtt.value, self._cloud.value)

    def round_trip(self, seconds: float) -> None:
        """A small request and its reply took so long."""
        self._rtt.add(seconds)

    def slice_came(
        self, size: int, header_s: float, rest_s: float, flow_s: float, timings: Mapping[str, float]
    ) -> None:
        """A whole slice came.

        Args:
            size: payload bytes.
            header_s: seconds from the request to the header; includes the cloud's queue, not its work before that.
            rest_s: seconds from the header to the end.
            flow_s: of them, those from the first payload to the end: a long slice comes while the cloud still works.
            timings: the cloud's own, of the trailer.
        """
        queue, worked = timings.get("queue", 0.0), timings.get("prefill", 0.0) + timings.get("encode", 0.0)
        self._rtt.add(header_s - queue)
        self._cloud.add(queue + worked)
        noise = _NOISE_S + _NOISE_SHARE * (self._rtt.value or 0.0)
        if not size:
            return
        moving = rest_s - worked
        if moving > noise:
            self._bandwidth.add(size / max(moving, flow_s))
        elif (least := size / max(noise, flow_s)) > (self._bandwidth.value or 0.0):
            self._bandwidth.add(least)
        else:
            self._bandwidth.confirm()

    def slice_late(self, size: int, seconds: float) -> None:
        """A slice of about `size` payload bytes had not come after `seconds`."""
        known = self._bandwidth.value
        if known is not None and size / seconds < known:
            self._bandwidth.add(size / seconds)


class _Running:
    """One number; see the module."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: deque[float] = deque(maxlen=_SAMPLES)
        self._log = 0.0
        self._at = -math.inf

    @property
    def value(self) -> float | None:
        return math.exp(self._log) if self._clock() - self._at <= _FRESH_S else None

    def confirm(self) -> None:
        self._at = self._clock()

    def add(self, sample: float) -> None:
        if not 0 < sample < math.inf:
            return  # clocks of two machines may disagree by more than there is to measure
        if self.value is None:
            self._last.clear()
        weight = _WEIGHT if len(self._last) == _SAMPLES else 1.0
        self._last.append(sample)
        middle = math.log(sorted(self._last)[(len(self._last) - 1) // 2])
        self._log = (1 - weight) * self._log + weight * middle
        self.confirm()
