"""What a slice is made of, before any of it is computed or has come: known to both sides without a wire between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kvwire.segment import SegmentSpec, SliceKind


class Described(Protocol):
    """Whatever says what a slice is made of: the Sharer's cut, or a header off the wire."""

    @property
    def kind(self) -> SliceKind: ...
    @property
    def specs(self) -> tuple[SegmentSpec, ...]: ...
    @property
    def spans(self) -> tuple[tuple[int, int, int], ...]: ...
    @property
    def tail(self) -> int: ...


@dataclass(frozen=True, slots=True)
class SliceLayout:
    """See the module.

    specs: segments in sending order. spans: (section, character start, character end) of each shared position, start
    and end within the section's text; none where the slice is not shared. tail: template positions after them.
    """

    kind: SliceKind
    specs: tuple[SegmentSpec, ...]
    spans: tuple[tuple[int, int, int], ...] = ()
    tail: int = 0

    @classmethod
    def of(cls, described: Described) -> SliceLayout:
        """The layout of what is cut, or of what a header announces."""
        return cls(described.kind, described.specs, described.spans, described.tail)
