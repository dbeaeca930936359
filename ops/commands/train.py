"""`kvwire selection`, `kvwire cache` and `kvwire train`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.commands.options import OtherDevice, placed
from ops.output import Json, print_mapping, progress_console

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
    device: OtherDevice = None,
    as_json: Json = False,
) -> None:
    """Run the Sharer over the training texts once, and keep what it reads; runs that read alike share it."""
    from rich.progress import Progress

    from fuser.train.config import TrainConfig
    from fuser.train.prepare import fill_cache

    with Progress(console=progress_console) as progress:
        size, added = fill_cache(
            placed(TrainConfig.load(config), device, None), progress, max_minutes, dry_run
        )
    found = {"items added": added, "items left": size.items - added}
    print_mapping(found | {"bytes needed": size.needed, "bytes free": size.free}, as_json)


def selection(
    config: Config,
    output: Annotated[Path, typer.Argument(help="Where to write it: a .safetensors file.", dir_okay=False)],
    questions: Annotated[int, typer.Option(min=50, help="Training questions to read.")] = 800,
    device: OtherDevice = None,
    as_json: Json = False,
) -> None:
    """Fit which attention heads of the Sharer point at answers, for selection.rule = "learnt"; before the cache."""
    from rich.progress import Progress

    from fuser.train.config import TrainConfig
    from fuser.train.prepare import fit_selection

    with Progress(console=progress_console) as progress:
        found = fit_selection(placed(TrainConfig.load(config), device, None), output, questions, progress)
    print_mapping(found, as_json)


def train(
    config: Config,
    max_minutes: MaxMinutes = math.inf,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share every batch, on Ray Train.")] = 1,
    device: OtherDevice = None,
    as_json: Json = False,
) -> None:
    """Train the heads on what `kvwire cache` has kept; ends in a bundle. A call goes on where the last one stopped."""
    from fuser.train.cache import CacheIncomplete
    from fuser.train.config import TrainConfig

    settings = placed(TrainConfig.load(config), device, None)
    try:
        done = _train(settings, max_minutes, workers)
    except CacheIncomplete as error:
        raise RuntimeError(f"{error}; run `kvwire cache {config}` first") from error
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


def _train(settings: "TrainConfig", max_minutes: float, workers: int) -> dict[str, Any]:
    from rich.progress import Progress

    with Progress(console=progress_console) as progress:
        if workers > 1:
            from ops.train_workers import train_with_workers

            return train_with_workers(settings, progress, max_minutes, workers)
        from fuser.train.session import train as train_here

        return train_here(settings, progress, max_minutes)
