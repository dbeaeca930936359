"""How things ended, counted by the kind of fault; and what must never happen."""

from __future__ import annotations

import collections
import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


class Ending(StrEnum):
    """How one request ended under a fault.

    DETECTED: what arrived was refused, by name. FUSED: an answer of exactly its own segments: the fault did no harm.
    ALONE: receiver-only, abstained, relayed or no answer, and it says why. FAILED: an error of the catalogue.
    WRONG: it says fused and is not what the request should give, or says nothing. HANG: it came after its deadline.
    CRASH: an error that is not of the catalogue.
    """

    DETECTED = "detected"
    FUSED = "fused"
    ALONE = "alone"
    FAILED = "failed"
    WRONG = "wrong"
    HANG = "hang"
    CRASH = "crash"


VIOLATIONS: Final = (Ending.WRONG, Ending.HANG, Ending.CRASH)


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that must never happen. `index` with the run's seed makes it happen again."""

    part: str
    fault: str
    index: int
    ending: Ending
    why: str


@dataclass(slots=True)
class _FaultRow:
    endings: collections.Counter[str] = field(default_factory=collections.Counter)
    reasons: collections.Counter[str] = field(default_factory=collections.Counter)
    seconds: list[float] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)


class Tally:
    """Endings of one part, by the kind of fault."""

    def __init__(self, part: str) -> None:
        self.part = part
        self.violations: list[Violation] = []
        self._rows: dict[str, _FaultRow] = {}

    def add(
        self, fault: str, index: int, ending: Ending, reason: str = "", seconds: float | None = None
    ) -> None:
        """Count one. `reason`: of the catalogue, or of an answer; what was wrong of a violation."""
        row = self._rows.setdefault(fault, _FaultRow())
        row.endings[ending] += 1
        if ending in VIOLATIONS:
            self.violations.append(Violation(self.part, fault, index, ending, reason))
        elif reason:
            row.reasons[reason] += 1
        if seconds is not None:
            row.seconds.append(seconds)

    def recovered(self, fault: str, seconds: float) -> None:
        """So long after the fault was over an answer was fused again."""
        self._rows.setdefault(fault, _FaultRow()).recovery_s.append(seconds)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: a row for each kind of fault, and all of them together."""
        rows = {name: _told([row]) for name, row in sorted(self._rows.items())}
        return {
            "rows": rows,
            "all": _told(self._rows.values()),
            "violations": list(map(dataclasses.asdict, self.violations)),
        }


def _told(rows: Iterable[_FaultRow]) -> dict[str, Any]:
    rows = list(rows)
    endings: collections.Counter[str] = sum((row.endings for row in rows), collections.Counter())
    reasons: collections.Counter[str] = sum((row.reasons for row in rows), collections.Counter())
    return {
        "faults": endings.total(),
        "endings": {str(ending): endings[ending] for ending in Ending},
        "reasons": dict(reasons.most_common()),
        "seconds": quantiles([s for row in rows for s in row.seconds]),
        "recovery_s": quantiles([s for row in rows for s in row.recovery_s]),
    }


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """n, p50, p99 and the largest; None of nothing. Of fewer than a hundred p99 is near the largest."""
    if not values:
        return None
    cuts = statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else list(values) * 99
    return {"n": len(values), "p50": cuts[49], "p99": cuts[98], "most": max(values)}
