"""Fills a cache directory: sized before it starts, stopped at any moment, started again where it was."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor

from fuser.atomic import atomic_write, directory_lock
from fuser.lab.data.document import Item
from fuser.lab.train.cache import (
    FEATURES,
    INDEX,
    ITEM_SIZE,
    STATISTICS,
    item_key,
    read_index,
    read_statistics,
)
from fuser.lab.train.cached import moved, to_row
from fuser.lab.train.sharer_reading import SharerReading
from fuser.lab.train.sources import AnyItem

_FIT_ITEMS = 16  # items whose statistics standardise the cache


class CacheWriter:
    """Fills a cache directory, made if absent, with what one Sharer reads."""

    def __init__(self, directory: Path, reading: SharerReading) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._reading = reading
        self._width = reading.geometry.width

    def fill(
        self, items: Iterable[AnyItem], progress: Progress, max_minutes: float = float("inf")
    ) -> tuple[int, int]:
        """Cache the items that are not there yet, in order, until done or out of time.

        Returns:
            Items cached now, and those left.

        Raises:
            OSError: the disk has less free than the features will take; nothing was written.
            RuntimeError: another process fills this directory.
        """
        deadline = time.monotonic() + 60 * max_minutes
        items = list(items)
        if not self._todo(items):  # whoever fills it meanwhile is nothing to us
            return 0, 0
        with directory_lock(self.directory, "filling the cache"):
            start = self._cut_torn_tail()
            todo = self._todo(items)
            needed = self._checked_space(todo, progress)
            task = progress.add_task(f"caching the Sharer, {needed / 1e9:.1f} GB", total=len(todo))
            added = 0
            if not todo:
                return 0, 0
            mean, scale = self._statistics(list(todo.values()))
            with (self.directory / FEATURES).open("ab") as features, self._index.open("ab") as index:
                for key, item in todo.items():
                    if time.monotonic() > deadline:
                        break
                    rows, cached = self._reading.read_item(item)
                    features.write(((rows - mean) * scale).clamp(-6e4, 6e4).half().numpy().tobytes())
                    features.flush()
                    row = {"key": key} | to_row(moved(cached, start, item.source))
                    index.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                    index.flush()
                    start += len(rows)
                    added += 1
                    progress.advance(task)
            return added, len(todo) - added

    @property
    def _index(self) -> Path:
        return self.directory / INDEX

    def _todo(self, items: Iterable[AnyItem]) -> dict[str, AnyItem]:
        known = read_index(self.directory, self._width).items
        keyed = {item_key(item): item for item in items}
        return {key: item for key, item in keyed.items() if key not in known}

    def _checked_space(self, todo: dict[str, AnyItem], progress: Progress) -> int:
        """Bytes of the features, from the tokens; with drafts, as if all were as long as may be."""
        counted = progress.track(todo.values(), description="counting positions")
        needed = sum(map(self._reading.rows, counted)) * self._width * ITEM_SIZE
        if needed > (free := shutil.disk_usage(self.directory).free):
            raise OSError(
                f"the cache needs {needed / 1e9:.2f} GB more in {self.directory}, where {free / 1e9:.2f} GB are free: "
                "name another place with `cache`, or take fewer documents"
            )
        return needed

    def _cut_torn_tail(self) -> int:
        """Drop what a kill left half-written: rows without a line, a line without its rows. Returns the rows kept."""
        features = self.directory / FEATURES
        features.touch()
        self._index.touch()
        whole = read_index(self.directory, self._width)
        with self._index.open("r+b") as index:
            index.truncate(whole.size)
        with features.open("r+b") as file:
            file.truncate(whole.rows * self._width * ITEM_SIZE)
        return whole.rows

    def _statistics(self, items: list[AnyItem]) -> tuple[Tensor, Tensor]:
        path = self.directory / STATISTICS
        if not path.exists():
            picked = items[:: -(-len(items) // _FIT_ITEMS)]
            sample = torch.cat([self._reading.read_item(_first_question(item))[0] for item in picked])
            scale = 1 / sample.std(0).clamp(min=1e-4)
            with atomic_write(path) as partial:
                save_file({"mean": sample.mean(0), "scale": scale}, partial)
        return read_statistics(self.directory)


def _first_question(item: AnyItem) -> AnyItem:
    return replace(item, questions=item.questions[:1]) if isinstance(item, Item) else item
