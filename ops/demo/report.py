"""What the demo found: one row a question, totals, and what was checked on the wire."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ops.demo.score import is_right
from ops.demo.wire_check import WireCheck


@dataclass(frozen=True, slots=True)
class Said:
    """One answer, and whether it is right."""

    text: str
    right: bool

    @classmethod
    def of(cls, text: str, accepted: Iterable[str]) -> "Said":
        """Judge the text of an answer."""
        return cls(text, is_right(text, accepted))


@dataclass(frozen=True, slots=True)
class DemoRow:
    """One question.

    fused: empty where there was no answer. fused_source: "fused", or "receiver-only" with `reason`.
    kind: of slice, "" where there is none. bytes_on_wire: messages both ways. payload_bytes: of segments. positions:
    that travelled; of an excerpt they are some of the `document_positions`.
    """

    question: str
    document: str
    right_answer: str
    alone: Said
    fused: Said
    fused_source: str
    reason: str | None
    kind: str
    given_text: Said
    bytes_on_wire: int
    payload_bytes: int
    positions: int
    document_positions: int
    time_to_first_token_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """The whole demo. bf16_bytes: of one Sharer position's K and V in all layers."""

    sharer: str
    receiver: str
    bundle: str
    codec: str
    bf16_bytes: int
    rows: tuple[DemoRow, ...]
    wire: WireCheck
    seconds: float

    @property
    def passed(self) -> bool:
        """Every question was answered with a slice, and no document was seen on the wire."""
        return self.wire.passed and all(row.fused_source == "fused" for row in self.rows)

    @property
    def bytes_on_wire(self) -> int:
        """Messages both ways, all questions."""
        return sum(row.bytes_on_wire for row in self.rows)

    @property
    def positions(self) -> int:
        """Positions that travelled, all questions."""
        return sum(row.positions for row in self.rows)

    @property
    def quoted(self) -> int:
        """Those of them that are a document's."""
        return sum(row.positions for row in self.rows if row.kind != "draft")

    @property
    def document_positions(self) -> int:
        """Positions of the documents asked about, once a question."""
        return sum(row.document_positions for row in self.rows)

    @property
    def bytes_per_position(self) -> float:
        """Bytes of segments per position that travelled."""
        return sum(row.payload_bytes for row in self.rows) / self.positions if self.positions else 0.0

    @property
    def median_first_token_s(self) -> float:
        """Median time to the first token of the fused answers."""
        return statistics.median(row.time_to_first_token_s for row in self.rows) if self.rows else 0.0

    @property
    def right(self) -> dict[str, int]:
        """How many answers are right, by column."""
        return {
            "alone": sum(row.alone.right for row in self.rows),
            "fused": sum(row.fused.right for row in self.rows),
            "given_text": sum(row.given_text.right for row in self.rows),
        }

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON, totals included."""
        return asdict(self) | {
            "wire": self.wire.to_dict(),
            "passed": self.passed,
            "totals": {
                "questions": len(self.rows),
                "right": self.right,
                "bytes_on_wire": self.bytes_on_wire,
                "positions": self.positions,
                "quoted": self.quoted,
                "document_positions": self.document_positions,
                "bytes_per_position": self.bytes_per_position,
                "median_time_to_first_token_s": self.median_first_token_s,
            },
        }
