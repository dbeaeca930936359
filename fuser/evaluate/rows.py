"""The rows of a table: what answers, and by which plan its slices are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fuser.bundle import Bundle
from kvwire.plan import WHOLE, Plan
from kvwire.segment import SliceKind

DOCUMENT_ROWS = {
    "receiver": "Receiver alone (floor)",
    "text": "Receiver given the document's text (ceiling)",
    "excerpt-text": "Receiver given the excerpt's text",
    "own": "Receiver's own KV, the excerpt's positions",
    "sharer": "Sharer's own answer",
    "relay-fair": "text relay (fair)",
    "routing": "routing",
    "fused": "fused",
    "mismatched": "fused, slice of another document",
    "identical": "fused, Identical Sharer",
}
"""Rows over cloud documents -> what a table calls them.

receiver: nothing before the question. own: the Receiver's own KV at the Sharer's tokens of the excerpt, no Fuser in
between. relay-fair: the Sharer's answer to the prompt that the slice is cut from, given as a document. routing: the
Receiver's own answer where it is sure of it, else the Sharer's. mismatched: the slice of the most alike question over
another document (`fuser.evaluate.mismatched`). identical: the slice of a bundle whose Sharer is the Receiver's own
model.
"""

READ_SHARER = ("relay-fair", "routing")
"""Rows that read the answers of the row `sharer`."""

SENT = ("fused", "mismatched")
"""Rows that are made once for every plan."""

SELECTED = ("excerpt-text", "own")
"""Rows that are made once for every number of positions: nothing is encoded for them."""

EXCERPTS = ("fused", "mismatched", "identical", *SELECTED)
"""Rows that read document positions of the Sharer's."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    kind: such as `fused`. plan: as much of one as means something to the row. label: what a table calls the kind.
    """

    kind: str
    plan: Plan = WHOLE
    label: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """In the log and in reports, such as `fused int8:m8`; the bundle's own way has the name of the kind."""
        return self.kind if self.plan == WHOLE else f"{self.kind} {self.plan}"

    @property
    def title(self) -> str:
        """What a table calls the row."""
        return self.label if self.plan == WHOLE else f"{self.label}, {self.plan}"

    def beside(self, kind: str) -> Row:
        """The row of another kind that is to be compared with this one: by the same plan, as far as it has one."""
        return Row(kind, _had(kind, self.plan))


def rows_of(labels: Mapping[str, str], plans: Sequence[Plan] = (WHOLE,)) -> tuple[Row, ...]:
    """Every row of a table, each once. labels: kind -> what a table calls it."""
    return tuple(
        dict.fromkeys(Row(kind, _had(kind, plan), label) for kind, label in labels.items() for plan in plans)
    )


def _had(kind: str, plan: Plan) -> Plan:
    """As much of a plan as a kind of row has."""
    if kind in SENT:
        return plan
    return replace(WHOLE, positions=plan.positions) if kind in SELECTED else WHOLE


@dataclass(frozen=True, slots=True)
class Extras:
    """What some rows need beside the bundle. answerable: whether the documents answer the questions."""

    identical: Bundle | None = None
    answerable: bool = True


def missing(kind: str, bundle: Bundle, extras: Extras, documents: int) -> str | None:
    """Why rows of a kind cannot be run with what is given; None where they can.

    Args:
        documents: how many different ones the questions are over.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in DOCUMENT_ROWS:
        raise ValueError(f"unknown row {kind!r}; rows over documents are {', '.join(DOCUMENT_ROWS)}")
    if kind in EXCERPTS and kind != "identical" and SliceKind.EXCERPT not in bundle.kinds:
        return f"the bundle makes no {SliceKind.EXCERPT} slices"
    if kind == "identical":
        if extras.identical is None:
            return "needs a bundle whose Sharer is the Receiver's own model: --identical"
        if SliceKind.EXCERPT not in extras.identical.kinds:
            return f"the bundle given with --identical makes no {SliceKind.EXCERPT} slices"
    if kind == "mismatched" and not extras.answerable:
        return "every slice is one of a document that does not answer the question"
    if kind == "mismatched" and documents < 2:
        return "needs questions over at least two documents: a higher --limit"
    return None
