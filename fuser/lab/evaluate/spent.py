"""Seconds that reading took, kept beside what was read: a cache that is there already has not come for nothing."""

from __future__ import annotations

import json
from pathlib import Path

from fuser.atomic import atomic_write


class Spent:
    """Seconds and questions of one source of data, in a file that all sources of a cache share."""

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._source = source
        self._all: dict[str, list[float]] = json.loads(path.read_text("utf-8")) if path.exists() else {}

    @property
    def each(self) -> float:
        """Seconds a question; 0 where nothing is known."""
        seconds, questions = self._all.get(self._source, (0.0, 0.0))
        return seconds / questions if questions else 0.0

    def add(self, seconds: float, questions: float) -> None:
        """Note more work; work on nothing is not noted."""
        if not questions:
            return
        before = self._all.get(self._source, [0.0, 0.0])
        self._all[self._source] = [before[0] + seconds, before[1] + questions]
        with atomic_write(self._path) as partial:
            partial.write_text(json.dumps(self._all), encoding="utf-8")
