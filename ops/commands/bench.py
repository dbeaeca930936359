"""`kvwire bench`: one subcommand a benchmark of `ops/bench`."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.output import console, print_json, progress_console

if TYPE_CHECKING:
    from rich.progress import Progress

app = typer.Typer(no_args_is_help=True, help="Benchmarks: every time beside its baseline of the same run.")

_OUT = "Output"
JsonOut = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="OUT", help="Write the whole report here; - prints.", rich_help_panel=_OUT
    ),
]
MarkdownOut = Annotated[
    Path | None, typer.Option("--markdown", help="Write the table here.", rich_help_panel=_OUT)
]
PlotOut = Annotated[
    Path | None, typer.Option("--plot", help="Draw it here: .png, .svg or .pdf.", rich_help_panel=_OUT)
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many of what is measured; for a quick try.")]


@dataclass(frozen=True)
class Bench:
    """One benchmark as a command runs it.

    Attributes:
        name: of the subcommand.
        settings: what was asked for, as the report repeats it.
        measure: does it; returns plain JSON values.
        markdown: the table of a report.
        plot: draws a report, where there is a picture.
        seed: None where nothing is drawn by chance.
    """

    name: str
    settings: Mapping[str, Any]
    measure: Callable[["Progress"], Mapping[str, Any]]
    markdown: Callable[[Mapping[str, Any]], str]
    plot: Callable[[Mapping[str, Any], Path], None] | None = None
    seed: int | None = None

    def run(
        self, json_out: str | None = None, markdown_out: Path | None = None, plot_out: Path | None = None
    ) -> None:
        """Measure with a progress bar, then print and write what was asked for.

        Raises:
            RuntimeError, ValueError: the picture could not be drawn; said before anything is measured.
        """
        from ops.bench.envelope import measured

        if plot_out is not None:
            from fuser.evaluate.plot import check

            check(plot_out)
        with _progress() as progress:
            report = measured(self.name, self.settings, self.seed, lambda: self.measure(progress))
        text = self.markdown(report)
        if json_out == "-":
            print_json(report)
        else:
            console.print(text, markup=False, highlight=False, soft_wrap=True)
            if json_out is not None:
                _write(Path(json_out), json.dumps(report, indent=2, ensure_ascii=False))
        if markdown_out is not None:
            _write(markdown_out, text)
        if plot_out is not None and self.plot is not None:
            plot_out.parent.mkdir(parents=True, exist_ok=True)
            self.plot(report, plot_out)


def _progress() -> "Progress":
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


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
