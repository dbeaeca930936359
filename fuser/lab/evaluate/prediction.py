"""One answer of one row, marked, and the file that keeps answers while they are made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fuser.atomic import whole_lines


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row's answer to one question.

    row: the row's name. item: names the question within its run, the same in every row, so that rows pair up.
    text: what was said. right: every metric of the task, each in [0, 1] (1 or 0 where it is a yes or no).
    seconds: of this row's own work, a question's share of its batch. bytes: payload from cloud to edge.
    """

    row: str
    item: str
    text: str
    right: Mapping[str, float]
    seconds: float = 0.0
    bytes: int = 0


class PredictionLog:
    """Answers in a file of JSON lines, appended as they are made, so that a run that was cut short goes on.

    Args:
        path: made with its folder if absent. A last line that was not written to its end is cut off.

    Attributes:
        folder: of the file.

    Raises:
        ValueError: a line that is no prediction, named with its number.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.folder = path.parent
        self.predictions = [_parse(line, path, n) for n, line in enumerate(whole_lines(path), 1)]

    def done(self, row: str) -> set[str]:
        """Items that the row has answered."""
        return {p.item for p in self.predictions if p.row == row}

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Keep answers, here and in the file."""
        new = list(predictions)
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in new)
        self.predictions += new


def _parse(line: bytes, path: Path, number: int) -> Prediction:
    try:
        return Prediction(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} line {number} is no prediction ({error}); remove the file to start anew"
        ) from error
