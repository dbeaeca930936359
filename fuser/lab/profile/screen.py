"""Screened plans in a file of JSON lines, kept while they are made, so that a profile that was stopped goes on"""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path

from fuser.atomic import whole_lines
from fuser.config import BadConfig, from_dict, to_dict
from fuser.lab.profile.front import nearest_front
from fuser.lab.profile.rows import Screened
from kvwire.plan import Plan


class ScreenLog:
    """What was screened. A last line that was not written to its end is cut off.

    Raises:
        ValueError: a line that is no screened plan, named with its number.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.screened = [_parse(line, path, number) for number, line in enumerate(whole_lines(path), 1)]

    def done(self) -> set[Plan]:
        """The plans that are screened."""
        return {one.plan for one in self.screened}

    def append(self, screened: Screened) -> None:
        """Keep one, here and in the file."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(to_dict(screened)) + "\n")
        self.screened.append(screened)

    def nearest(self, count: int, among: Container[Plan]) -> list[Plan]:
        """At most `count` of some plans, those nearest to the front of loss against bytes, cheapest first."""
        found = sorted((one for one in self.screened if one.plan in among), key=lambda one: one.mean_bytes)
        chosen = nearest_front([(one.mean_bytes, one.loss) for one in found], count)
        return [found[index].plan for index in chosen]


def _parse(line: bytes, path: Path, number: int) -> Screened:
    try:
        return from_dict(Screened, json.loads(line))
    except (BadConfig, ValueError) as error:
        raise ValueError(f"{path} line {number} is no screened plan ({error}); remove the file") from error
