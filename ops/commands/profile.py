"""`kvwire profile`."""

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


def profile(
    bundle: BundleArgument,
    config: SettingsArgument = None,
    values: Values = None,
    max_minutes: MaxMinutes = math.inf,
    table_out: Annotated[
        Path | None,
        typer.Option(
            "--table",
            help="Directory for plans.json. [default: the bundle's, where edges read it]",
            file_okay=False,
            rich_help_panel="Output",
        ),
    ] = None,
    json_out: JsonOut = None,
    markdown_out: MarkdownOut = None,
    plot_out: PlotOut = None,
) -> None:
    """Measure what each plan of a bundle is worth, and keep the best as the table that edges pick from.

    Every plan is screened by the loss of the right answers; the best of them answer, beside their controls. What is
    measured is kept as it comes: the same call goes on where it was stopped. ops/examples/profile.toml has every key
    with its meaning.
    """
    from fuser.lab.evaluate.picture import plot_plans
    from fuser.lab.profile.grid import ProfileConfig
    from fuser.lab.profile.run import ProfileRun
    from fuser.lab.profile.worth import markdown

    told, setup = told_and_fetched(ProfileConfig, bundle, config, values, plot_out)
    run = ProfileRun(bundle, told, setup)
    with counting_progress() as progress:
        done = run.measure(progress, max_minutes)
    if done:
        directory = table_out or bundle
        directory.mkdir(parents=True, exist_ok=True)
        path = run.table(directory).save(directory)
        progress_console.print(f"The table is in {path}.", highlight=False)
    else:
        progress_console.print(
            "Out of time: no table is written yet. The same call goes on.", highlight=False
        )
    report = run.report(sys.argv)
    write_report(report, markdown(report), json_out, markdown_out)
    if plot_out is not None and report["plans"]:
        plot_plans(report, plot_out)
