"""What a command prints: tables and text for a person, one JSON value with --json."""

import contextlib
import json
import sys
import time
import traceback
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ops.extras import extra_of

if TYPE_CHECKING:
    from rich.progress import Progress

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]

_PIPE_WIDTH: Final = 160
"""Characters of a line of a table where no terminal says how many it has."""


def _output(stderr: bool) -> Console:
    """Prints text as it is: questions, documents' names and paths may look like markup."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=stderr, markup=False, emoji=False, width=width)


console = _output(stderr=False)
progress_console = _output(stderr=True)


def failed(error: Exception) -> int:
    """Tell on standard error why a command did not work, with --verbose whence it came; returns the exit status."""
    if "-v" in sys.argv or "--verbose" in sys.argv:
        traceback.print_exception(error)
        return 1
    sys.stderr.write(f"kvwire: {reason_of(error)}\n")
    return 1


def reason_of(error: Exception) -> str:
    """Why something did not work, in one line for a person."""
    if isinstance(error, ModuleNotFoundError) and (extra := extra_of(error.name)) is not None:
        return f"this needs {error.name}: pip install 'kvwire[{extra}]'"
    return str(error) or type(error).__name__


def printable(text: str, kept: str = "") -> str:
    """A text from elsewhere, for a terminal: control characters but those `kept` as they would be in Python."""

    def plain(c: str) -> bool:
        return c.isprintable() or c in kept or unicodedata.category(c) == "Zs"  # Zs: a wide space, for one

    return "".join(c if plain(c) else repr(c)[1:-1] for c in text)


def write_said(text: str) -> None:
    """Write what a model or a cloud said, at once: as it is for a program, `printable` for a terminal."""
    sys.stdout.write(printable(text, "\n\t") if sys.stdout.isatty() else text)
    sys.stdout.flush()


def note(text: str) -> None:
    """Tell something beside what a command prints, on standard error."""
    progress_console.print(text, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print `value` as one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


@contextlib.contextmanager
def loading(what: str) -> Iterator[None]:
    """While `what` is loaded: a line that turns on a terminal, then for good how many seconds it took."""
    began = time.monotonic()
    with progress_console.status(f"loading {what}"):
        yield
    progress_console.print(f"loaded {what} in {time.monotonic() - began:.1f} s", style="dim", highlight=False)


def counting_progress() -> "Progress":
    """Bars that count what is done, with the time that is left; nothing where standard error is no terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=progress_console, disable=not progress_console.is_terminal)


def write_report(
    report: Mapping[str, Any], text: str, json_out: str | None, markdown_out: Path | None
) -> None:
    """Print a report's text, or with `json_out` "-" the report; write either to the files that are named."""
    if json_out == "-":
        print_json(report)
    else:
        console.print(text, highlight=False, soft_wrap=True)
        if json_out is not None:
            _write(Path(json_out), json.dumps(report, indent=2, ensure_ascii=False))
    if markdown_out is not None:
        _write(markdown_out, text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


class Rows:
    """A table for a person; cells are printed as they are, without markup, and control characters as in Python.

    Cells fold at blanks alone, so an id, a file's name or a number is never cut. Where that does not fit, each row is
    a block of lines.

    Args:
        ruled: a line below each row, and none between columns.
    """

    def __init__(self, columns: Sequence[str], rows: Iterable[Sequence[object]], ruled: bool = False) -> None:
        self._columns, self._ruled = columns, ruled
        self._rows = [
            [cell if isinstance(cell, Text) else Text(printable(str(cell), "\n")) for cell in row]
            for row in rows
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ruled = self._ruled
        look = box.HORIZONTALS if ruled else box.HEAVY_HEAD
        made = Table(header_style="bold", box=look, show_lines=ruled, pad_edge=not ruled)
        between = 3 * len(self._columns) + (-1 if ruled else 1)
        widths = self._widths(console, options.max_width - between)
        if widths is None:
            yield from self._blocks()
            return
        for name, width in zip(self._columns, widths, strict=True):
            made.add_column(name, width=width)
        for row in self._rows:
            made.add_row(*row)
        yield made

    def _widths(self, console: Console, room: int) -> list[int] | None:
        """Of each column at least its longest word, and what is left by what it would have; None where that is not
        enough."""
        anyhow = console.options.update(max_width=1_000_000)
        cells = ([Text(name), *column] for name, *column in zip(self._columns, *self._rows, strict=True))
        asked = [[Measurement.get(console, anyhow, cell) for cell in column] for column in cells]
        least = [max(cell.minimum for cell in column) for column in asked]
        more = [max(cell.maximum for cell in column) - low for column, low in zip(asked, least, strict=True)]
        if (spare := room - sum(least)) < 0:
            return None
        share = min(1.0, spare / max(1, sum(more)))
        return [low + int(share * over) for low, over in zip(least, more, strict=True)]

    def _blocks(self) -> Iterator[Text]:
        for number, row in enumerate(self._rows):
            if number:
                yield Text()
            for name, cell in zip(self._columns, row, strict=True):
                yield Text.assemble(
                    (f"{name}: " if name else "", "bold"), cell, no_wrap=True, overflow="ignore"
                )


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], to: Console | None = None) -> None:
    """Print `Rows`; a line of a block that is longer than the terminal is left to the terminal, whole."""
    (to or console).print(Rows(columns, rows), crop=False)


def print_mapping(values: Mapping[str, object], as_json: bool) -> None:
    """Print named values: one JSON object, or one line each."""
    if as_json:
        print_json(dict(values))
        return
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        console.print(f"{name:<{width}}  {value}", highlight=False, soft_wrap=True)
