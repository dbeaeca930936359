"""The log of a run: one JSON line an event, and the same numbers for TensorBoard where that is installed."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fuser.atomic import atomic_write

logger = logging.getLogger(__name__)

LOG = "log.jsonl"


class RunLog:
    """`log.jsonl` and `tensorboard/` in a run's directory.

    Opened at a step, it forgets what an earlier start wrote for that step and later ones, which will come again.
    """

    def __init__(self, directory: Path, step: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / LOG
        kept = [row for row in read_log(directory) if row["step"] < step]
        with atomic_write(self._path) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        self._board = _board(directory / "tensorboard", step)

    def write(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """One event; numbers among the values (nested ones too) become curves `stage/name`."""
        row = {"stage": stage, "step": step, **values, "time": round(time.time(), 1)}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, number in _numbers(stage, values):
                self._board.add_scalar(name, number, step)

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_log(directory: Path) -> list[dict[str, Any]]:
    """The rows of a run's log; a half-written line is left out."""
    path = directory / LOG
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    rows = [_row(line) for line in lines]
    return [row for row in rows if row is not None]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"stage", "step"} <= row.keys() else None


def _numbers(prefix: str, values: Mapping[str, Any]) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _numbers(f"{prefix}/{name}", value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((f"{prefix}/{name}", value))
    return found


def _board(directory: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.warning("tensorboard is not installed (extra `train`): the run is logged to %s alone", LOG)
        return None
    return SummaryWriter(str(directory), purge_step=max(step, 0))
