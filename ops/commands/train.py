"""`kvwire selection`, `kvwire cache`, `kvwire probe` and `kvwire train`."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.commands.options import JsonOut, MarkdownOut, PlotOut, whole_numbers
from ops.output import Json, print_mapping, progress_console, write_report

if TYPE_CHECKING:
    from fuser.train.config import TrainConfig

Config = Annotated[Path, typer.Argument(help="A training run as TOML.", exists=True, dir_okay=False)]
MaxMinutes = Annotated[
    float, typer.Option(min=0.0, help="Stop after so long; the next call goes on. [default: no limit]")
]


def cache(
    config: Config,
    max_minutes: MaxMinutes = math.inf,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it will take.")] = False,
    as_json: Json = False,
) -> None:
    """Run the Sharer over the training texts once, and keep what it reads; runs that read alike share it."""
    from rich.progress import Progress

    from fuser.train.config import TrainConfig
    from fuser.train.prepare import fill_cache

    with Progress(console=progress_console) as progress:
        size, added = fill_cache(TrainConfig.load(config), progress, max_minutes, dry_run)
    found = {"items added": added, "items left": size.items - added}
    print_mapping(found | {"bytes needed": size.needed, "bytes free": size.free}, as_json)


def selection(
    config: Config,
    output: Annotated[Path, typer.Argument(help="Where to write it: a .safetensors file.", dir_okay=False)],
    questions: Annotated[int, typer.Option(min=50, help="Training questions to read.")] = 800,
    as_json: Json = False,
) -> None:
    """Fit which attention heads of the Sharer point at answers, for selection.rule = "learnt"; before the cache."""
    from rich.progress import Progress

    from fuser.train.config import TrainConfig
    from fuser.train.prepare import fit_selection

    with Progress(console=progress_console) as progress:
        found = fit_selection(TrainConfig.load(config), output, questions, progress)
    print_mapping(found, as_json)


def probe(
    config: Config,
    positions: Annotated[
        str, typer.Option(help="Positions of text that the closed form is made from.")
    ] = "20000,150000",
    code_dims: Annotated[str, typer.Option(help="Lengths of joint codes.")] = "48,96,192,512",
    reaches: Annotated[
        str, typer.Option(help="Sharer layers that feed each Receiver layer's own code.")
    ] = "1,4",
    json_out: JsonOut = None,
    markdown_out: MarkdownOut = None,
    plot_out: PlotOut = None,
) -> None:
    """How much of the Receiver's KV a closed form explains: by code, by text read, by Sharer layer; before a run."""
    from rich.progress import Progress

    from fuser.evaluate.plot import check
    from fuser.train.config import TrainConfig
    from fuser.train.prepare import prepare
    from fuser.train.probe import probe as probe_shapes
    from fuser.train.probe_report import draw, markdown

    if plot_out is not None:
        check(plot_out)
    counts, dims = whole_numbers("--positions", positions), whole_numbers("--code-dims", code_dims)
    with _cached(config), Progress(console=progress_console) as progress:
        setting = prepare(TrainConfig.load(config))
        report = probe_shapes(setting, counts, dims, whole_numbers("--reaches", reaches), progress)
    write_report(report, markdown(report), json_out, markdown_out)
    if plot_out is not None:
        plot_out.parent.mkdir(parents=True, exist_ok=True)
        draw(report, plot_out)


def train(
    config: Config,
    max_minutes: MaxMinutes = math.inf,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share every batch, on Ray Train.")] = 1,
    as_json: Json = False,
) -> None:
    """Train the heads on what `kvwire cache` has kept; ends in a bundle. A call goes on where the last one stopped."""
    from fuser.train.config import TrainConfig

    settings = TrainConfig.load(config)
    try:
        with _cached(config):
            done = _train(settings, max_minutes, workers)
    except KeyboardInterrupt:
        progress_console.print(
            f"Stopped: run `kvwire train {config}` again to go on from the last checkpoint, or with `--max-minutes 0` "
            "to write the bundle as it was there.",
            markup=False,
        )
        raise
    print_mapping(done, as_json)
    if not done["finished"]:
        progress_console.print(f"Not finished: run `kvwire train {config}` again to go on.", markup=False)


@contextmanager
def _cached(config: Path) -> Iterator[None]:
    """Says what to do where the cache is not filled."""
    from fuser.train.cache import CacheIncomplete

    try:
        yield
    except CacheIncomplete as error:
        raise RuntimeError(f"{error}; run `kvwire cache {config}` first") from error


def _train(settings: "TrainConfig", max_minutes: float, workers: int) -> dict[str, Any]:
    from rich.progress import Progress

    with Progress(console=progress_console) as progress:
        if workers > 1:
            from ops.train_workers import train_with_workers

            return train_with_workers(settings, progress, max_minutes, workers)
        from fuser.train.session import train as train_here

        return train_here(settings, progress, max_minutes)
