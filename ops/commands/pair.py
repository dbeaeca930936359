"""`kvwire pair`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.commands.init import example
from ops.commands.options import DeviceOption
from ops.output import Json, console, counting_progress, note, print_json, print_mapping

if TYPE_CHECKING:
    from fuser.lab.pair.run import PairRun

Model = "a known name (`kvwire models list`), a Hugging Face id, or a directory"


def pair(
    sharer: Annotated[str, typer.Argument(help=f"The large model: {Model}.")],
    receiver: Annotated[str, typer.Argument(help="The small model, likewise.")],
    data: Annotated[
        Path,
        typer.Option(
            help="A directory of .txt and .md files, or questions as JSON lines (docs/training.md).",
            exists=True,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory of the bundle, made if absent.", file_okay=False)],
    minutes: Annotated[float, typer.Option(min=0.05, help="How long all of it may take.")] = 60.0,
    kinds: Annotated[
        str, typer.Option(help="Kinds of slice that it is trained and measured for: excerpt, draft.")
    ] = "excerpt,draft",
    work: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the recipe, its stages and the cache. [default: OUT.work]", file_okay=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, and of all that is drawn.")] = 1,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Stop once it is known what fits, and how long it takes.")
    ] = False,
    device: DeviceOption = "auto",
    as_json: Json = False,
) -> None:
    """Make a bundle for two models from your own texts: train it, measure it, and write a page about it.

    Whole documents are held out for the table. Stop it at any moment: the same call goes on where it was.
    """
    from fuser.lab.pair.run import PairRequest, PairRun
    from ops.models.fetch import bring

    asked = PairRequest(
        sharer,
        receiver,
        str(data.resolve()),
        minutes,
        tuple(filter(None, map(str.strip, kinds.split(",")))),
        seed,
    )
    bring(sharer, receiver)
    run = PairRun(asked, out, work or out.with_name(f"{out.name}.work"), device)
    try:
        found = _made(run, estimate)
    except KeyboardInterrupt:
        note(f"Stopped: what is done is kept in {run.work}, and the same call goes on.")
        raise
    if as_json:
        print_json(found)
    elif not estimate:
        console.print(found["table"], highlight=False, soft_wrap=True)
        print_mapping({name: found[name] for name in ("bundle", "output", "page", "work")}, False)


def _made(run: "PairRun", only_estimate: bool) -> dict[str, Any]:
    from ops.tables import short_table

    with counting_progress() as progress:
        note("Reading the texts, and timing a few pieces and steps.")
        found = run.prepare(progress)
    for line in _lines(found):
        note(line)
    if only_estimate:
        return {"estimate": found}
    with counting_progress() as progress:
        made = run.make(progress)
        report = run.evaluate(progress)
    table = short_table(report)
    page = run.page(report, table, note)
    _write_examples(run)
    done = {"bundle": made["bundle"], "output": str(run.output), "page": str(page), "work": str(run.work)}
    return done | {"estimate": found, "report": report, "table": table}


def _lines(found: dict[str, Any]) -> list[str]:
    """An estimate for a person."""
    from collections import Counter

    from fuser.lab.pair.texts import counted

    sizes, pace = found["sizes"], found["pace"]
    seconds = ", ".join(f"{name} {_time(value)}" for name, value in sizes["seconds"].items() if value)
    rule = (
        f"fitted on {sizes['fit']} questions"
        if sizes["fit"]
        else "of rule last: too few texts or minutes to fit"
    )
    drafted = f", of which {sizes['drafted']:,} pieces with drafts" if sizes["drafted"] else ""
    slower = f", with drafts in {pace['draft']:.2f} s" if sizes["drafted"] else ""
    return [
        f"{found['documents']:,} documents. To train on: {sizes['pieces']:,} pieces of text, {found['questions']:,} "
        f"questions, {found['positions']:,} positions{drafted}.",
        f"Left out: {counted(Counter(found['left_out']))}.",
        f"The cache takes {found['cache_bytes'] / 1e6:,.0f} MB at most. A piece is read in {pace['read']:.2f} s"
        f"{slower}; a step takes {pace['step']:.2f} s: {sizes['steps'] + sizes['draft_steps']:,} steps of "
        f"{found['batch']} questions fit.",
        f"{found['sharer_layers']} layers of the Sharer are read; the selection is {rule}.",
        f"About {_time(60 * found['minutes'])}: {seconds}.",
    ]


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _write_examples(run: "PairRun") -> None:
    """Configurations that serve the bundle, beside it; one that is there may have been edited, and stays."""
    from fuser.atomic import atomic_write

    values = {"tenant": "acme", "host": "127.0.0.1", "port": "7443", "bundle": ".", "plan": "auto"}
    values |= dict(zip(("sharer", "receiver"), run.names, strict=True))
    kinds = run.asked.kinds
    made_for = {  # what the examples say of kinds
        '# kinds = ["excerpt", "draft"]         #': f"kinds = {json.dumps(kinds)}  #",
        'kind = ""': f'kind = "{kinds[0]}"',
    }
    for path in (run.output / "cloud.toml", run.output / "edge.toml"):
        if path.exists():
            continue
        text = example(path.name, values)
        for usual, own in made_for.items():
            text = text.replace(usual, own)
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")
