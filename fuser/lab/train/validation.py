"""A task on its validation examples, in one control."""

from __future__ import annotations

from typing import Any

import torch

from fuser.lab.train.task import Control, TrainTask
from fuser.lab.train.world import World


def validate(task: TrainTask[Any], control: Control, batch: int, world: World) -> dict[str, float | int]:
    """Mean loss and share of exact answers over all validation examples, the batches dealt out to the workers.

    The modules are in evaluation mode. Returns loss, exact and count.
    """
    loss = exact = count = 0.0
    with torch.no_grad():
        for part in task.validation(batch)[world.rank :: world.size]:
            outcome = task.loss(part, control)
            loss += float(outcome.loss) * len(part)
            exact += float(outcome.exact.sum())
            count += len(part)
    loss, exact, count = world.total([loss, exact, count])
    return {"loss": loss / max(count, 1), "exact": exact / max(count, 1), "count": int(count)}
