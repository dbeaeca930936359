"""`kvwire train`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.commands.options import OtherDevice
from ops.output import Json, print_json, print_mapping, print_table, progress_console

if TYPE_CHECKING:
    from fuser.lab.train.making import Standing
    from fuser.lab.train.recipe import Recipe


def train(
    recipe: Annotated[Path, typer.Argument(help="A training recipe as TOML.", exists=True, dir_okay=False)],
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another value for a key of the recipe, written with dots; stage.NAME.KEY for one of a stage.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how far each stage is.")] = False,
    max_minutes: Annotated[
        float, typer.Option(min=0.0, help="Stop after so long; the next call goes on. [default: no limit]")
    ] = math.inf,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share every batch, on Ray Train.")] = 1,
    device: OtherDevice = None,
    as_json: Json = False,
) -> None:
    """Make a bundle, stage after stage. Stop it at any moment: the same call goes on where it was."""
    from fuser.lab.train.making import standings
    from fuser.lab.train.recipe import Recipe

    loaded = Recipe.load(recipe, [*(values or ()), *([f"device={device}"] if device else ())])
    if dry_run:
        _show(standings(loaded), as_json)
        return
    try:
        done = _make(loaded, max_minutes, workers)
    except KeyboardInterrupt:
        progress_console.print(
            f"Stopped: run `kvwire train {recipe}` again to go on from the last checkpoint, or with `--max-minutes 0` "
            "to write the stage's bundle as it was there.",
            markup=False,
        )
        raise
    print_mapping(done, as_json)
    if not done["finished"]:
        progress_console.print(f"Not finished: run `kvwire train {recipe}` again to go on.", markup=False)


def _show(found: "list[Standing]", as_json: bool) -> None:
    rows = [(one.stage.name, one.stage.kind, _words(one)) for one in found]
    if as_json:
        print_json([dict(zip(("stage", "kind", "state"), row, strict=True)) for row in rows])
    else:
        print_table(("stage", "kind", "state"), rows)


def _words(one: "Standing") -> str:
    if one.done:
        return "done"
    if one.step:
        return f"at step {one.step} of {one.steps}"
    return "begun" if one.begun else "to do"


def _make(recipe: "Recipe", max_minutes: float, workers: int) -> dict[str, Any]:
    from rich.progress import Progress

    from fuser.lab.train.making import make
    from fuser.lab.train.world import World
    from ops.models.fetch import bring

    for stage in recipe.stages:
        bring(stage.config.sharer, stage.config.receiver)
        if stage.kind == "train":
            World(size=workers).check(stage.config.answer.batch)
    with Progress(console=progress_console, disable=not progress_console.is_terminal) as progress:
        if workers == 1:
            return make(recipe, progress, max_minutes)
        from ops.train_workers import Workers

        with Workers(workers) as together:
            return make(recipe, progress, max_minutes, together.train)
