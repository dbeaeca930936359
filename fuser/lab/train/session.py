"""One call of a training run: prepare, go on from where it was, write the bundle as it is then."""

from __future__ import annotations

import math
from typing import Any

from rich.progress import Progress

from fuser.lab.train.config import TrainConfig
from fuser.lab.train.prepare import prepare, save, tasks_of
from fuser.lab.train.run import TrainRun
from fuser.lab.train.world import World


def train(config: TrainConfig, progress: Progress, max_minutes: float = math.inf) -> dict[str, Any]:
    """Train until the last step or until time is up; every worker of a world calls this alike.

    Returns:
        finished, step, steps, the bundle's hash and its directory, and the directory of logs; plain JSON values.

    Raises:
        CacheIncomplete: not all items are cached.
        ValueError: what the config asks for does not fit the data, the models or what `work` holds.
        FloatingPointError: the loss is not finite any more.
    """
    world = World.current()
    setting = prepare(config)
    run = TrainRun(config, tasks_of(setting), progress, world)
    try:
        finished = run.advance(max_minutes)
    finally:
        run.close()
    written = {"bundle": save(setting)} if world.rank == 0 else {}
    done = {"finished": finished, "step": run.step, "steps": config.answer.steps}
    return done | written | {"output": config.output, "work": config.work}
