"""`kvwire audit`."""

import sys

import typer

from ops.commands.options import (
    BundleArgument,
    JsonOut,
    MarkdownOut,
    PlotOut,
    SettingsArgument,
    Values,
    told_and_fetched,
)
from ops.output import counting_progress, write_report


def audit(
    bundle: BundleArgument,
    config: SettingsArgument = None,
    values: Values = None,
    json_out: JsonOut = None,
    markdown_out: MarkdownOut = None,
    plot_out: PlotOut = None,
) -> None:
    """Measure what slices give away beyond their answer: attacks on a bundle's slices, each beside its control.

    The attacker has the bundle, the Sharer's weights and texts of its own. ops/examples/audit.toml has every key with
    its meaning. Exits with 1 where a check fails: a leak that was planted is not found, or one is found that is not
    there; the numbers then say nothing. And where something is over its bound (at_most).
    """
    from fuser.lab.leakage.report import markdown, plot
    from fuser.lab.leakage.run import LeakageConfig, LeakageRun

    told, setup = told_and_fetched(LeakageConfig, bundle, config, values, plot_out)
    run = LeakageRun(bundle, told, setup)
    with counting_progress() as progress:
        report = run.measure(progress, sys.argv)
    write_report(report, markdown(report), json_out, markdown_out)
    if plot_out is not None:
        plot(report, plot_out)
    if not (report["valid"] and all(bound["passed"] for bound in report["bounds"])):
        raise typer.Exit(1)
