"""`kvwire eval`."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ops.commands.options import BundleArgument, DeviceOption
from ops.output import counting_progress, progress_console, write_report

if TYPE_CHECKING:
    from fuser.lab.evaluate.config import EvaluateConfig

_WITH = "Data and rows"
_SLICES = "Over documents"
_OUT = "Output"


def evaluate(
    bundle: BundleArgument,
    data: Annotated[
        str,
        typer.Option(help="JSON lines (.gz or not), records:SPLIT, or hf:NAME.", rich_help_panel=_WITH),
    ],
    task: Annotated[
        Literal["auto", "choice", "document"],
        typer.Option(help="What the data asks; auto tells it by the fields.", rich_help_panel=_WITH),
    ] = "auto",
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Questions at most. [default: all; of records 200]", rich_help_panel=_WITH),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which questions.", rich_help_panel=_WITH)] = 1,
    rows: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated rows. [default: all that can be run with what is given]",
            rich_help_panel=_WITH,
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Training questions with choices, named as --data is, for rows that are fitted or shown examples.",
            rich_help_panel=_WITH,
        ),
    ] = None,
    identical: Annotated[
        Path | None,
        typer.Option(
            help="A bundle whose Sharer is the Receiver's own model.",
            exists=True,
            file_okay=False,
            rich_help_panel=_WITH,
        ),
    ] = None,
    sharer: Annotated[
        str | None, typer.Option(help="The Sharer, if not known by the bundle's name.", rich_help_panel=_WITH)
    ] = None,
    receiver: Annotated[
        str | None, typer.Option(help="The Receiver, likewise.", rich_help_panel=_WITH)
    ] = None,
    max_document_chars: Annotated[
        int, typer.Option(min=1, help="Longer documents are left out, and counted.", rich_help_panel=_WITH)
    ] = 4000,
    case: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated cases: plain, two (the document and a stranger, both "
            "orders), long:TOKENS; or unanswerable (a stranger alone).",
            rich_help_panel=_SLICES,
        ),
    ] = None,
    positions: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated numbers of positions; rows are made for each. [default: the bundle's]",
            rich_help_panel=_SLICES,
        ),
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated plans: a CODEC and what else the plan has, such as int8:m8:256 (8 "
            "positions, 256 numbers of a code), raw:last3, int4:bottleneck (of shared slices), any with "
            ":padded. [default: raw]",
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(
            help="What both models compute in; bfloat16 is faster where the processor multiplies it."
        ),
    ] = "float32",
    device: DeviceOption = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 16,
    max_minutes: Annotated[
        float, typer.Option(min=0.0, help="Stop after so long; the same call goes on. [default: no limit]")
    ] = math.inf,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Where answers and what the Sharer reads are kept. [default: beside the fetched models]"
        ),
    ] = None,
    json_out: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="OUT",
            help="Write every row with its counts here; - prints.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    markdown_out: Annotated[
        Path | None, typer.Option("--markdown", help="Write the table here.", rich_help_panel=_OUT)
    ] = None,
    plot_out: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw the rows here: .png, .svg or .pdf.", rich_help_panel=_OUT),
    ] = None,
    curve_out: Annotated[
        Path | None,
        typer.Option(
            "--curve",
            help="Draw what positions and bytes are worth: several --positions or --plan.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            help="Put the short table into this Markdown file, between its lines <!-- kvwire eval --> and "
            "<!-- end of kvwire eval -->.",
            exists=True,
            dir_okay=False,
            rich_help_panel=_OUT,
        ),
    ] = None,
) -> None:
    """Answer questions in every row of the table: the Fuser, its rivals, and the controls that it must beat.

    Answers are kept as they come. A call that was stopped, or asks for more rows, makes what is missing.
    """
    from fuser.lab.evaluate.config import EvaluateConfig
    from fuser.lab.evaluate.curve import plot_curve
    from fuser.lab.evaluate.plot import check
    from kvwire.plan import Plan
    from ops.tables import check_marks, put, short_table

    wanted = None if rows is None else _listed("--rows", rows)
    for picture in (plot_out, curve_out):
        if picture is not None:
            check(picture)
    if into is not None:
        check_marks(into)
    if limit is None and data.startswith("records:"):
        limit = 200
    config = EvaluateConfig(
        bundle=bundle,
        data=data,
        task=task,
        limit=limit,
        seed=seed,
        rows=wanted,
        calibration=calibration,
        identical=identical,
        batch=batch,
        max_document_chars=max_document_chars,
        work=work,
        sharer=sharer,
        receiver=receiver,
        dtype=dtype,
        device=device,
        positions=tuple(_number("--positions", word) for word in _listed("--positions", positions)),
        plans=tuple(Plan.parse(word) for word in _listed("--plan", plan)),
        cases=_listed("--case", case),
    )
    if curve_out is not None and len(config.positions) < 2 and len(config.plans) < 2:
        raise ValueError("--curve needs several --positions or several --plan")
    report = _run(config, max_minutes, curve_out is not None)
    _write(report, json_out, markdown_out, plot_out)
    if curve_out is not None:
        plot_curve(report, curve_out)
    if not report["complete"]:
        kept = "" if into is None else f" {into} is left as it was."
        progress_console.print(
            f"Out of time: the table is over what is answered so far. The same call goes on.{kept}",
            highlight=False,
        )
    elif into is not None:
        put(short_table(report), into)


def _listed(option: str, words: str | None) -> tuple[str, ...]:
    """Words with commas between; none where the option is not given."""
    found = tuple(word.strip() for word in (words or "").split(",") if word.strip())
    if words is not None and not found:
        raise ValueError(f"{option} names no {option.removeprefix('--').removesuffix('s')}")
    return found


def _number(option: str, word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise ValueError(f"{option} {word}: expected comma-separated numbers from 1")
    return int(word)


def _run(config: "EvaluateConfig", max_minutes: float, curve: bool) -> dict[str, Any]:
    from fuser.lab.evaluate.run import Run
    from ops.models.fetch import bring_pair

    bring_pair(config.bundle, config.sharer, config.receiver)
    run = Run(config)
    if curve and run.task == "choice":
        raise ValueError("--curve is for questions over documents")
    with counting_progress() as progress:
        run.answer(progress, max_minutes)
    return run.report(sys.argv)


def _write(report: dict[str, Any], json_out: str | None, table: Path | None, picture: Path | None) -> None:
    from fuser.lab.evaluate.curve import curve_markdown
    from fuser.lab.evaluate.plot import plot
    from fuser.lab.evaluate.report import markdown

    text = markdown(report) + curve_markdown(report)
    write_report(report, text, json_out, table)
    if picture is not None:
        plot(report, picture)
