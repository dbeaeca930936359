"""Which plan to ask for: the smallest that keeps nearly all of the transfer that bytes and time allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge_node.config import ShareConfig
from edge_node.link import Estimate
from kvwire.codec import CodecRegistry
from kvwire.plan import Granted, Plan
from kvwire.section import Section, Visibility
from kvwire.segment import SliceKind
from kvwire.slice_io import most_bytes, payload_codec

if TYPE_CHECKING:
    from fuser import Bundle, PlanRow, PlanTable

REQUESTED: Final = "REQUESTED"
"""The caller named the plan."""
CONFIGURED: Final = "CONFIGURED"
"""The configuration names the plan, or no table of this bundle says better."""
BEST: Final = "BEST"
"""Bytes and time allow the plan of most transfer: it is picked, or one that keeps nearly all of that."""
BYTE_BUDGET: Final = "BYTE_BUDGET"
"""A better plan may need more bytes than allowed."""
DEADLINE: Final = "DEADLINE"
"""A better plan would come too late over the link as it is estimated."""
NOT_USEFUL: Final = "NOT_USEFUL"
"""No plan of the table has a transfer whose interval is clear of 0."""
NOT_GRANTED: Final = "NOT_GRANTED"
"""The cloud's export policy lets no plan of the table out as it is."""
_ENOUGH: Final = 0.95
"""Of the transfer of the best plan that fits: less is not told apart by a few hundred questions, and bytes are."""
_UNKNOWN: Final = Estimate(bandwidth_bytes_per_s=125_000.0, rtt_s=0.0, cloud_s=0.0)
"""A link that nothing is known of yet counts as a slow one, 1 Mbit/s: it does not keep a slice of a kilobyte from being
the best, so a first answer is the one that later questions get."""


@dataclass(frozen=True, slots=True)
class Pick:
    """What to ask for; None where no slice is worth it. reason: one of this module's."""

    plan: Plan | None
    reason: str


def pick(
    rows: Sequence[PlanRow],
    most: Callable[[Plan], int],
    max_bytes: int,
    deadline_s: float,
    estimate: Estimate,
) -> Pick:
    """Choose among the rows of one kind of slice: the fewest bytes that keep nearly all of the transfer to be had.

    Args:
        most: the payload bytes that a plan may come to for this prompt. The cloud refuses what may be over the cap, so
            it counts, not what slices had on average.
        max_bytes: cap on the payload; 0 is none.
        deadline_s: seconds from the request to the end of the slice.
    """
    useful = sorted(
        (row for row in rows if row.useful), key=lambda row: (-row.transfer.point, row.mean_bytes)
    )
    if not useful:
        return Pick(None, NOT_USEFUL)
    small = [row for row in useful if not max_bytes or most(row.plan) <= max_bytes]
    if not small:
        return Pick(None, BYTE_BUDGET)
    known = _UNKNOWN if estimate.seconds(0) is None else estimate
    fits = [row for row in small if (known.seconds(row.max_bytes) or 0.0) <= deadline_s]
    if not fits:
        return Pick(None, DEADLINE)
    enough = [row for row in fits if row.transfer.point >= _ENOUGH * fits[0].transfer.point]
    plan = min(enough, key=lambda row: row.mean_bytes).plan
    if fits[0] is useful[0]:
        return Pick(plan, BEST)
    return Pick(plan, DEADLINE if fits[0] is not small[0] else BYTE_BUDGET)


class Picker:
    """Picks for one bundle.

    Args:
        table: the bundle's, if it was profiled.
    """

    def __init__(self, bundle: Bundle, share: ShareConfig, table: PlanTable | None) -> None:
        self._bundle, self._share, self._table = bundle, share, table
        self._codecs = CodecRegistry(bundle.codecs())

    def measured(self, kind: SliceKind, max_bytes: int) -> bool:
        """Whether a plan for a slice of this kind comes from the table: where there is one, and the configuration says
        so or bytes are capped."""
        return bool(self._rows(kind)) and bool(max_bytes or self._share.plan == "auto")

    def configured(self, sections: Sequence[Section], kind: SliceKind, max_bytes: int) -> Pick:
        """The plan of the configuration, if it may not come to more than the bytes allowed.

        Raises:
            Unsupported: it names a codec that this bundle does not have.
        """
        plan = self._share.configured(kind)
        over = 0 < max_bytes < self.most_bytes(plan, kind, sections)
        return Pick(None, BYTE_BUDGET) if over else Pick(plan, CONFIGURED)

    def pick(
        self,
        sections: Sequence[Section],
        kind: SliceKind,
        max_bytes: int,
        deadline_s: float,
        estimate: Estimate,
        granted: Granted | None,
    ) -> Pick:
        """The plan of the table for a slice of these sections.

        Args:
            granted: what the cloud's policy lets out: of the others none is picked. None where it is about no document.

        Raises:
            Unsupported: the table names a codec that this bundle does not have.
        """
        # One that would be cut is dropped: what it is then worth was not measured. Tables that ship have smaller ones.
        rows = [
            row
            for row in self._rows(kind)
            if granted is None or granted.allows(kind, row.plan, self._positions(row.plan, kind, sections))
        ]
        if not rows:
            return Pick(None, NOT_GRANTED)
        return pick(rows, lambda plan: self.most_bytes(plan, kind, sections), max_bytes, deadline_s, estimate)

    def _rows(self, kind: SliceKind) -> list[PlanRow]:
        # Who asks for a draft asks that nothing be quoted: a plan that does is never picked, only named.
        return [] if self._table is None else [row for row in self._table.of(kind) if not row.plan.quoted]

    def most_bytes(self, plan: Plan, kind: SliceKind, sections: Sequence[Section]) -> int:
        """The payload bytes that a plan may come to. How many tokens the Sharer makes of shared text is not known here:
        one a byte at most."""
        from fuser.slice_specs import slice_specs

        codec = payload_codec(plan, self._codecs.get(plan.codec))
        specs = slice_specs(self._bundle, kind, plan, self._positions(plan, kind, sections), "float32")
        return most_bytes(specs, codec)

    def _positions(self, plan: Plan, kind: SliceKind, sections: Sequence[Section]) -> int:
        """The most that may travel."""
        if kind is not SliceKind.SHARED:
            from fuser.slice_specs import most_positions

            return most_positions(self._bundle, plan, kind)
        style = self._bundle.config.sharer_prompt
        after = max((len(wrap[1].encode()) for wrap in style.wraps.values()), default=0)
        texts = [s.text for s in sections if s.visibility is Visibility.SHARED and s.text is not None]
        most = (
            sum(len(text.encode()) + 1 for text in texts)
            + after
            + len((style.closing + style.answering).encode())
        )
        return min(plan.last or most, most)
