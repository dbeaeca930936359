"""Answers, marked, and the file that keeps them as they are made: a run that is stopped continues from there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fuser.atomic import whole_lines


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row's answer to one question by one plan.

    row, plan: names as `Line.key` gives them. item: the question's id, the same in every row, so that rows pair up.
    text: what was said. right: every metric of the task, each in [0, 1] (1 or 0 where it is a yes or no).
    seconds: of this row's own work, a question's share of its batch. bytes: payload from cloud to edge. signals: as of
    `RowAnswer`.
    """

    row: str
    plan: str
    item: str
    text: str
    right: Mapping[str, float]
    seconds: float = 0.0
    bytes: int = 0
    signals: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        return self.row, self.plan


class PredictionLog:
    """Answers in a file of JSON lines.

    Args:
        path: made with its folder if absent. A last line that was not written to its end is cut off.

    Raises:
        ValueError: a line that is no prediction, named with its number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[tuple[str, str], dict[str, Prediction]] = {}
        self._keep(_parse(line, path, n) for n, line in enumerate(whole_lines(path), 1))

    @property
    def predictions(self) -> list[Prediction]:
        """All answers, line by line."""
        return [one for found in self._found.values() for one in found.values()]

    def of(self, key: tuple[str, str]) -> Mapping[str, Prediction]:
        return self._found.get(key, {})

    def append(self, predictions: Iterable[Prediction]) -> None:
        new = list(predictions)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in new)
        self._keep(new)

    def _keep(self, predictions: Iterable[Prediction]) -> None:
        for one in predictions:
            self._found.setdefault(one.key, {})[one.item] = one


def _parse(line: bytes, path: Path, number: int) -> Prediction:
    try:
        return Prediction(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} line {number} is no prediction ({error}); remove the file to start anew"
        ) from error
