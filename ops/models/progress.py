"""What a person sees while models are fetched and converted. Silent unless asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress


class Progress:
    """Bars and one-line notes on standard error; `Progress(False)` shows nothing.

    Where standard error is no terminal (a log), a bar is one line when its work starts.
    """

    def __init__(self, shown: bool = True) -> None:
        self._console = Console(stderr=True, quiet=not shown, highlight=False)

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)

    @contextmanager
    def task(self, description: str, total: int, unit: str = "bytes") -> Iterator[Callable[[int], None]]:
        """A bar over `total` units; yields the function that advances it."""
        count = DownloadColumn() if unit == "bytes" else TaskProgressColumn()
        with self._bar(description, total, (BarColumn(), count, TimeRemainingColumn())) as (bars, bar):
            yield lambda done: bars.advance(bar, done)

    @contextmanager
    def growth(self, description: str) -> Iterator[Callable[[int], None]]:
        """A count of bytes whose total is not known; yields the function that sets it."""
        columns = (SpinnerColumn(), DownloadColumn(), TransferSpeedColumn())
        with self._bar(description, None, columns) as (bars, bar):
            yield lambda count: bars.update(bar, completed=count)

    @contextmanager
    def step(self, description: str) -> Iterator[None]:
        """A spinner for work whose length is not known."""
        with self._bar(description, None, (SpinnerColumn(),)):
            yield

    @contextmanager
    def _bar(
        self, description: str, total: int | None, columns: tuple[ProgressColumn, ...]
    ) -> Iterator[tuple[RichProgress, TaskID]]:
        drawn = self._console.is_terminal and not self._console.quiet
        if not drawn:
            self.say(description)
        text = TextColumn("{task.description}", markup=False)
        with RichProgress(text, *columns, console=self._console, transient=True, disable=not drawn) as bars:
            yield bars, bars.add_task(description, total=total)
