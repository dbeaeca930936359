"""`kvwire profile`."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ops.commands.options import BundleArgument, DeviceOption, whole_numbers
from ops.output import counting_progress, progress_console, write_report

if TYPE_CHECKING:
    from fuser.lab.profile.run import ProfileConfig

_PLANS = "Plans"
_OUT = "Output"


def profile(
    bundle: BundleArgument,
    data: Annotated[
        str, typer.Option(help="Training questions: JSON lines, records:train, or hf:NAME.")
    ] = "records:train",
    questions: Annotated[int, typer.Option(min=2, help="Questions that are answered.")] = 200,
    screen: Annotated[int, typer.Option(min=1, help="Of them, those that every plan is screened by.")] = 48,
    plans: Annotated[
        int, typer.Option(min=1, help="Plans that are answered, at most.", rich_help_panel=_PLANS)
    ] = 12,
    codecs: Annotated[
        str | None,
        typer.Option(help="Comma-separated codecs to try. [default: all]", rich_help_panel=_PLANS),
    ] = None,
    positions: Annotated[
        str | None,
        typer.Option(
            help="Excerpt positions to try. [default: all, a half, ... an eighth]", rich_help_panel=_PLANS
        ),
    ] = None,
    code_dims: Annotated[
        str | None, typer.Option(help="Numbers of a code to try, likewise.", rich_help_panel=_PLANS)
    ] = None,
    last: Annotated[
        str, typer.Option(help="Last positions of shared slices to try.", rich_help_panel=_PLANS)
    ] = "32,8,2,1",
    padded: Annotated[
        bool,
        typer.Option("--padded", help="Payloads filled up to one size a plan.", rich_help_panel=_PLANS),
    ] = False,
    seed: Annotated[
        int | None, typer.Option(help="Which questions. [default: one that no shipped training used]")
    ] = None,
    max_document_chars: Annotated[int, typer.Option(min=1, help="Longer documents are left out.")] = 1200,
    batch: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 16,
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="What both models compute in.")
    ] = "float32",
    device: DeviceOption = "auto",
    max_minutes: Annotated[
        float, typer.Option(min=0.0, help="Stop after so long; the same call goes on. [default: no limit]")
    ] = math.inf,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Where answers and what the Sharer reads are kept. [default: beside the fetched models]"
        ),
    ] = None,
    sharer: Annotated[str | None, typer.Option(help="The Sharer, if not known by the bundle's name.")] = None,
    receiver: Annotated[str | None, typer.Option(help="The Receiver, likewise.")] = None,
    table_out: Annotated[
        Path | None,
        typer.Option(
            "--table",
            help="Directory for plans.json. [default: the bundle's, where edges read it]",
            file_okay=False,
            rich_help_panel=_OUT,
        ),
    ] = None,
    json_out: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="OUT", help="Write all that was measured; - prints.", rich_help_panel=_OUT
        ),
    ] = None,
    markdown_out: Annotated[
        Path | None, typer.Option("--markdown", help="Write the plans as a table.", rich_help_panel=_OUT)
    ] = None,
    plot_out: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw transfer against bytes: .png, .svg, .pdf.", rich_help_panel=_OUT),
    ] = None,
) -> None:
    """Measure what each plan of a bundle is worth, and keep the best as the table that edges pick from.

    Every plan is screened by the loss of the right answers; the best of them answer, beside their controls. What is
    measured is kept as it comes: the same call goes on where it was stopped.
    """
    from fuser.lab.evaluate.plot import check
    from fuser.lab.profile.grid import Dials
    from fuser.lab.profile.run import SEED, ProfileConfig

    if plot_out is not None:
        check(plot_out)
    dials = Dials(
        codecs=tuple(name.strip() for name in (codecs or "").split(",") if name.strip()),
        positions=whole_numbers("--positions", positions),
        code_dims=whole_numbers("--code-dims", code_dims),
        last=whole_numbers("--last", last),
        padded=padded,
    )
    config = ProfileConfig(
        bundle=bundle,
        data=data,
        questions=questions,
        screened=min(screen, questions),
        plans=plans,
        dials=dials,
        seed=SEED if seed is None else seed,
        batch=batch,
        max_document_chars=max_document_chars,
        dtype=dtype,
        device=device,
        work=work,
        sharer=sharer,
        receiver=receiver,
    )
    report = _measured(config, max_minutes, table_out or bundle)
    _write(report, json_out, markdown_out, plot_out)


def _measured(config: "ProfileConfig", max_minutes: float, table: Path) -> dict[str, Any]:
    """The report; the table is written once all is measured."""
    from fuser.lab.profile.run import ProfileRun
    from ops.models.fetch import bring_pair

    bring_pair(config.bundle, config.sharer, config.receiver)
    run = ProfileRun(config)
    with counting_progress() as progress:
        done = run.measure(progress, max_minutes)
    if done:
        table.mkdir(parents=True, exist_ok=True)
        path = run.table(table).save(table)
        progress_console.print(f"The table is in {path}.", highlight=False)
    else:
        progress_console.print(
            "Out of time: no table is written yet. The same call goes on.", highlight=False
        )
    return run.report(sys.argv)


def _write(
    report: dict[str, Any], json_out: str | None, markdown_out: Path | None, plot_out: Path | None
) -> None:
    from fuser.lab.profile.plot import plot
    from fuser.lab.profile.report import markdown

    text = markdown(report)
    write_report(report, text, json_out, markdown_out)
    if plot_out is not None and report["plans"]:
        plot(report, plot_out)
