"""What an evaluation is told: which bundle and data, which rows, how slices are cut and sent"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fuser.lab.evaluate.models import Dtype
from fuser.models.load import DeviceName
from kvwire.plan import Plan


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    """What an evaluation is told.

    data: `records:<split>`, a JSON-lines file or `hf:NAME` (`fuser.lab.data.load`). limit: questions at most. rows:
    None runs all that can be run. calibration: training questions with choices, for rows that are fitted or shown
    examples. bundle whose Sharer is the Receiver's own model. work: where answers and what the Sharer
    reads are kept. sharer, receiver: names or folders, where the bundle's own names are not enough. dtype: what both
    models compute in. device: where they do.

    plans: how slices are sent; none is `raw` and whole. Of documents alone: positions: of an excerpt, every number with
    every plan (`fuser.lab.evaluate.plans`); none is what the plans say. cases: what the
    questions are asked over (`fuser.lab.data.cases`); none is `plain`.
    """

    bundle: Path
    data: str
    task: Literal["auto", "choice", "document"] = "auto"
    limit: int | None = None
    seed: int = 1
    rows: tuple[str, ...] | None = None
    calibration: str | None = None
    identical: Path | None = None
    batch: int = 16
    max_document_chars: int = 4000
    work: Path | None = None
    sharer: str | None = None
    receiver: str | None = None
    dtype: Dtype = "float32"
    device: DeviceName = "auto"
    positions: tuple[int, ...] = ()
    plans: tuple[Plan, ...] = ()
    cases: tuple[str, ...] = ()
