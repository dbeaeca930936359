"""The rows of a multiple-choice table, and what each of them needs."""

from __future__ import annotations

from dataclasses import dataclass

from fuser.bundle.bundle import Bundle

CHOICE_ROWS = {
    "receiver": "Receiver",
    "calibrated": "Receiver, calibrated",
    "sharer": "Sharer",
    "relay-paper": "text relay (paper)",
    "relay-fair": "text relay (fair)",
    "routing": "routing",
    "few-shot": "Receiver, few-shot",
    "fused": "fused",
    "mismatched": "fused, slice of another question",
    "identical": "fused, Identical Sharer",
}
"""Row -> what a table calls it."""

READ_SHARER = frozenset({"sharer", "relay-paper", "relay-fair", "routing", "fused", "mismatched"})
_READ_TRAINING = frozenset({"calibrated", "routing", "few-shot"})


@dataclass(frozen=True, slots=True)
class Given:
    """What there is. sharer, training: whether there is one. questions: how many different ones are asked."""

    bundle: Bundle
    sharer: bool
    training: bool
    identical: Bundle | None
    questions: int


def missing(row: str, given: Given) -> str | None:
    """What a row needs and has not; None where it can be run.

    Raises:
        ValueError: an unknown row.
    """
    if row not in CHOICE_ROWS:
        raise ValueError(f"unknown row {row}; rows of multiple choice are {', '.join(CHOICE_ROWS)}")
    if row in READ_SHARER and not given.sharer:
        return "needs the Sharer"
    if row in ("fused", "mismatched") and given.bundle.fuse is None:
        return "needs a fuse head: the bundle makes no shared slices"
    if row in _READ_TRAINING and not given.training:
        return "needs training questions: --calibration FILE"
    if row == "mismatched" and given.questions < 2:
        return "needs at least two different questions: a higher --limit"
    if row == "identical":
        if given.identical is None:
            return "needs a bundle whose Sharer is the Receiver's own model: --identical DIR"
        if given.identical.fuse is None:
            return "needs a fuse head: the bundle given with --identical makes no shared slices"
    return None
