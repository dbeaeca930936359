"""Two real processes on gloo: they average gradients, share weights and stop together."""

import contextlib
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress
from torch import distributed, nn

from fuser.lab.train.log import read_log
from fuser.lab.train.run import TrainRun
from fuser.lab.train.world import World
from tests.fuser.lab.train.toy_task import WIDTH, ToyTask, toy_config


class _Stopped(Exception):
    """Stands for the end of a worker."""


def _worker(rank: int, folder: str, stop: int) -> None:
    """Train the toy in a world of two until a step; every worker starts from weights of its own."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    run = _toy(folder, rank, stop)
    with contextlib.suppress(_Stopped):
        run.advance()
    run.close()
    torch.save(run.modules["one"].state_dict(), f"{folder}/weights-{rank}")
    distributed.destroy_process_group()


def _toy(folder: str, seed: int, stop: int = 99) -> TrainRun:
    torch.manual_seed(seed)
    task = ToyTask("one", nn.Linear(WIDTH, WIDTH), noise=0.0)  # noise is drawn anew by every worker
    whole = task.control_at

    def control_at(step: int) -> Any:
        if step == stop:
            raise _Stopped
        return whole(step)

    task.control_at = control_at  # type: ignore[method-assign]
    tasks: list[Any] = [task]
    return TrainRun(toy_config(f"{folder}/work"), tasks, Progress(disable=True))


def _two(folder: Path, stop: int) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_worker, args=(rank, str(folder), stop)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0


def _losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_log(folder / "work") if row["stage"] == "step"]


def test_two_workers_train_as_one_and_one_goes_on_where_they_stopped(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    run = _toy(str(alone), seed=0)
    run.advance()
    run.close()
    _two(together, stop=8)
    assert _losses(together) == pytest.approx(_losses(alone)[:8], rel=1e-5)
    weights = [torch.load(together / f"weights-{rank}", weights_only=True) for rank in range(2)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    one = _toy(str(together), seed=7)
    assert one.step == 5  # the last that they kept
    one.advance()
    one.close()
    assert _losses(together) == pytest.approx(_losses(alone), rel=1e-5)


def test_a_batch_is_shared_equally_or_not_at_all() -> None:
    World(size=4).check(16)
    with pytest.raises(ValueError, match="batch is 16: 3 workers"):
        World(size=3).check(16)
