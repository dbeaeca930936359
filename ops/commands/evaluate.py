"""`kvwire eval`."""

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from ops.commands.options import (
    BundleArgument,
    JsonOut,
    MarkdownOut,
    MaxMinutes,
    PlotOut,
    SettingsArgument,
    Values,
    told_and_fetched,
)
from ops.output import counting_progress, progress_console, write_report


def evaluate(
    bundle: BundleArgument,
    config: SettingsArgument = None,
    values: Values = None,
    max_minutes: MaxMinutes = math.inf,
    json_out: JsonOut = None,
    markdown_out: MarkdownOut = None,
    plot_out: PlotOut = None,
    reliability_out: Annotated[
        Path | None,
        typer.Option(
            "--reliability",
            help="Draw here how often answers of a confidence are right (.png, .svg, .pdf).",
            rich_help_panel="Output",
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            help="Put the short table into this Markdown file, between its lines <!-- kvwire eval --> and "
            "<!-- end of kvwire eval -->.",
            exists=True,
            dir_okay=False,
            rich_help_panel="Output",
        ),
    ] = None,
    place: Annotated[
        str,
        typer.Option(
            help="Name of the place in that file: its first line is <!-- kvwire eval NAME -->.",
            rich_help_panel="Output",
        ),
    ] = "",
) -> None:
    """Answer questions in every row of the table: the Fuser, its rivals, and the controls that it must beat.

    ops/examples/eval.toml has every key with its meaning; `data` is the one that must be given. Answers are kept as
    they come. A call that was stopped, or asks for more rows, makes what is missing.
    """
    from fuser.lab.evaluate.picture import plot_reliability, plot_rows
    from fuser.lab.evaluate.report import markdown
    from fuser.lab.evaluate.run import Run
    from fuser.lab.evaluate.settings import EvaluateConfig
    from kvwire.errors import InvalidRequest
    from ops.tables import check_marks, put, short_table

    if place and into is None:
        raise InvalidRequest("--place is of the file of --into: give both")
    if into is not None:
        check_marks(into, place)
    told, setup = told_and_fetched(EvaluateConfig, bundle, config, values, plot_out)
    run = Run(bundle, told, setup)
    with counting_progress() as progress:
        run.answer(progress, max_minutes)
    report = run.report(sys.argv)
    write_report(report, markdown(report), json_out, markdown_out)
    if plot_out is not None:
        plot_rows(report, plot_out)
    if reliability_out is not None:
        plot_reliability(report, reliability_out)
    if not report["complete"]:
        kept = "" if into is None else f" {into} is left as it was."
        progress_console.print(
            f"Out of time: the table is over what is answered so far. The same call goes on.{kept}",
            highlight=False,
        )
    elif into is not None:
        put(short_table(report), into, place)
