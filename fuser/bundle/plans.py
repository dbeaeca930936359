"""The table of plans: what nothing beats, in `plans.json` beside a bundle's config, bound to the bundle's hash.

It is measured after the bundle was made, so it is no part of the hash; a table of another bundle is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fuser.atomic import file_bytes, write_json
from fuser.config import BadConfig, from_dict, to_dict
from kvwire.errors import InvalidRequest
from kvwire.plan import Plan
from kvwire.segment import SliceKind

PLANS_FILE = "plans.json"
_MAX_BYTES = 1 << 20


class BadTable(ValueError):
    """A table of plans cannot be used; the message names the file and what is wrong."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A point with its 95 % interval."""

    point: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.point:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One plan and what it is worth. Shares are in [-1, 1].

    mean_bytes, max_bytes: payload of a slice, over the questions asked. cap_bytes: the most that its codec could have
    needed for any of them.
    right: share of right answers. transfer: that share less the same with the slice of another question.
    against_raw: transfer less that of the raw plan, over the same questions.
    kept: share of what the raw plan closes of the way from the Receiver alone upwards; None where it closes nothing.
    gap: share of the way to the Receiver given the document's text; None where there is none.
    questions: asked.
    """

    plan: Plan
    kind: SliceKind
    mean_bytes: float
    max_bytes: int
    cap_bytes: int
    right: Interval
    transfer: Interval
    against_raw: Interval
    kept: Interval | None
    gap: Interval | None
    questions: int

    def __post_init__(self) -> None:
        if not 0 <= self.mean_bytes <= self.max_bytes <= self.cap_bytes or self.questions < 1:
            raise ValueError("bytes must be 0 <= mean <= max <= cap, and questions at least 1")
        if not self.transfer.low <= self.transfer.point <= self.transfer.high:
            raise ValueError("transfer lies outside its interval")

    @property
    def useful(self) -> bool:
        """Whether the transfer's interval is clear of 0."""
        return self.transfer.low > 0


@dataclass(frozen=True, slots=True)
class PlanTable:
    """The plans of one bundle. bundle: its hash. rows: of any kind of slice. measured: on what, where and when."""

    bundle: str
    rows: tuple[PlanRow, ...]
    measured: Mapping[str, Any]
    format: Literal[1] = 1

    def of(self, kind: SliceKind) -> tuple[PlanRow, ...]:
        """The rows of one kind of slice."""
        return tuple(row for row in self.rows if row.kind is kind)

    def save(self, bundle: Path | str) -> Path:
        """Write the table into a bundle's directory, whole or not at all; returns its path."""
        path = Path(bundle) / PLANS_FILE
        write_json(path, to_dict(self))
        return path

    @staticmethod
    def lies_in(directory: Path | str) -> bool:
        """Whether there is a table in a bundle's directory."""
        return (Path(directory) / PLANS_FILE).exists()

    @classmethod
    def load(cls, directory: Path | str, bundle_hash: str | None = None) -> PlanTable:
        """Read the table of a bundle, strictly.

        Args:
            directory: of the bundle.
            bundle_hash: of the bundle there, where it is known; else the bundle is read for it.

        Raises:
            BadTable: there is none, it is not one, or it was measured with another bundle.
            BadBundle: the bundle has to be read, and cannot be.
        """
        directory = Path(directory)
        path = directory / PLANS_FILE
        try:
            if file_bytes(path) > _MAX_BYTES:
                raise BadTable(f"{path}: larger than {_MAX_BYTES} bytes")
            table = from_dict(cls, json.loads(path.read_text("utf-8"), parse_constant=_refuse))
        except FileNotFoundError as error:
            raise BadTable(
                f"{directory} has no {PLANS_FILE}: `kvwire profile {directory}` makes one"
            ) from error
        except (BadConfig, InvalidRequest, ValueError, RecursionError) as error:
            raise error if isinstance(error, BadTable) else BadTable(f"{path}: {error}") from error
        if bundle_hash is None:
            from fuser.bundle.bundle import Bundle

            bundle_hash = Bundle.load(directory).hash
        if table.bundle != bundle_hash:
            raise BadTable(
                f"{path} was measured with the bundle {table.bundle}, this is {bundle_hash}: profile it again"
            )
        return table


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a number a table may hold")
