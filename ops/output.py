"""What a command prints: tables and text for a person, one JSON value with --json."""

import json
import sys
import traceback
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.extras import extra_of

if TYPE_CHECKING:
    from rich.progress import Progress

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]

console = Console(markup=False, emoji=False)
"""Prints text as it is: questions, documents' names and paths may look like markup."""
progress_console = Console(stderr=True, markup=False, emoji=False)


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


def print_json(value: Any) -> None:
    """Print `value` as one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def counting_progress() -> "Progress":
    """Bars that count what is done, with the time that is left."""
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
    return Progress(*columns, console=progress_console)


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


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> Table:
    """A table for a person; cells are printed as they are, whole and without markup."""
    made = Table(*columns, title=title, title_justify="left", header_style="bold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(str(cell), overflow="fold") for cell in row))
    return made


def print_mapping(values: Mapping[str, object], as_json: bool) -> None:
    """Print named values: one JSON object, or one line each."""
    if as_json:
        print_json(dict(values))
        return
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        console.print(f"{name:<{width}}  {value}", highlight=False, soft_wrap=True)
