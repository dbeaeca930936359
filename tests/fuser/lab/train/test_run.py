"""The training run: deterministic steps, exact resume, one optimiser for all tasks, controls in evaluation mode."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress
from torch import nn

from fuser.lab.train.config import TrainConfig
from fuser.lab.train.log import read_log
from fuser.lab.train.run import CHECKPOINT, TrainRun
from tests.fuser.lab.train.toy_task import WIDTH, ToyTask, toy_config


def _tasks(seed: int = 0) -> list[ToyTask]:
    torch.manual_seed(seed)
    return [ToyTask("one", nn.Linear(WIDTH, WIDTH)), ToyTask("other", nn.Linear(WIDTH, WIDTH))]


def _run(config: TrainConfig, tasks: list[Any] | None = None) -> TrainRun:
    return TrainRun(config, _tasks() if tasks is None else tasks, Progress(disable=True))


def _events(work: Path, stage: str) -> list[dict[str, Any]]:
    rows = [row for row in read_log(work) if row["stage"] == stage]
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


def _finish(config: TrainConfig) -> TrainRun:
    run = _run(config)
    assert run.advance()
    run.close()
    return run


class _Killed(Exception):
    """Stands for the end of the process: nothing after it runs."""


def test_a_killed_run_goes_on_with_the_losses_of_the_unbroken_one(tmp_path: Path) -> None:
    straight = _finish(toy_config(str(tmp_path / "straight")))
    config = toy_config(str(tmp_path / "killed"))
    for seed, stop in enumerate(
        (3, 7, 4)
    ):  # steps after its start: before any was kept, then twice between two
        tasks = _tasks(seed)
        _kill_at(tasks, stop)
        with closing(_run(config, tasks)) as run, pytest.raises(_Killed):
            run.advance()
    resumed = _finish(config)
    for stage in ("start", "step", "validation"):
        assert _events(tmp_path / "killed", stage) == _events(tmp_path / "straight", stage)
    assert len(_events(tmp_path / "straight", "step")) == 12
    for name, module in straight.modules.items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, resumed.modules[name].state_dict()[key])


def _kill_at(tasks: list[ToyTask], stop: int) -> None:
    """Raise in training step number `stop`, counted from 1 over all tasks."""
    seen = 0

    def wrap(task: ToyTask) -> None:
        true_loss = task.loss

        def loss(batch: Any, control: Any) -> Any:
            nonlocal seen
            if task.module.training:
                seen += 1
                if seen == stop:
                    raise _Killed
            return true_loss(batch, control)

        task.loss = loss  # type: ignore[method-assign]

    for task in tasks:
        wrap(task)


def test_a_rate_that_falls_over_more_steps_is_that_of_the_longer_run_as_far_as_this_one_goes(
    tmp_path: Path,
) -> None:
    _finish(toy_config(str(tmp_path / "long"), steps=24))
    _finish(toy_config(str(tmp_path / "cut"), decay_steps=24))
    assert _events(tmp_path / "cut", "step") == _events(tmp_path / "long", "step")[:12]


def test_a_run_in_slices_is_the_run_in_one(tmp_path: Path) -> None:
    _finish(toy_config(str(tmp_path / "one")))
    config = toy_config(str(tmp_path / "slices"))
    run = _run(config)
    assert not run.advance(max_minutes=0.0)  # nothing but the start
    run.close()
    assert run.step == 0
    _finish(config)
    assert _events(tmp_path / "slices", "step") == _events(tmp_path / "one", "step")
    assert _events(tmp_path / "slices", "validation") == _events(tmp_path / "one", "validation")


def test_the_loss_falls_and_first_values_are_set_once(tmp_path: Path) -> None:
    tasks = _tasks()
    config = toy_config(str(tmp_path), steps=200, evaluate_every=100)
    run = _run(config, tasks)
    run.advance()
    run.close()
    true = [row["true"]["loss"] for row in _events(tmp_path, "validation") if row["task"] == "one"]
    assert true[-1] < 0.3 * true[0]
    again = _tasks()
    _run(config, again).close()
    assert [task.starts for task in (*tasks, *again)] == [1, 1, 0, 0]


def test_every_control_is_evaluated_without_noise(tmp_path: Path) -> None:
    tasks = _tasks()
    run = _run(toy_config(str(tmp_path)), tasks)
    run.advance()
    run.close()
    rows = [row for row in _events(tmp_path, "validation") if row["task"] == "other"]
    assert [row["step"] for row in rows] == [0, 4, 8, 12]
    assert all({"true", "mismatched"} <= row.keys() and row["true"]["count"] == 7 for row in rows)
    assert ["text" in row for row in rows] == [True, False, False, True]
    evaluated = [asked for asked in tasks[1].asked if asked[0] == "mismatched"]
    assert evaluated
    assert all(not training for _, training in evaluated)


def test_tasks_take_turns_and_a_step_of_one_leaves_the_others_module_alone(tmp_path: Path) -> None:
    run = _run(toy_config(str(tmp_path), steps=1))
    before = {name: module.weight.clone() for name, module in run.modules.items()}  # type: ignore[operator]
    run.advance()
    run.close()
    assert not torch.equal(before["one"], run.modules["one"].weight)  # type: ignore[arg-type]
    assert torch.equal(before["other"], run.modules["other"].weight)  # type: ignore[arg-type]
    run = _run(toy_config(str(tmp_path / "longer")))
    run.advance()
    run.close()
    assert [row["task"] for row in _events(tmp_path / "longer", "step")] == ["one", "other"] * 6


def test_what_cannot_be_trained_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fewer training examples than one batch of 40"):
        _run(toy_config(str(tmp_path / "a"), batch=40))


def test_a_loss_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(tmp_path: Path) -> None:
    tasks = _tasks()
    tasks[0].truth = tasks[0].truth * float("nan")
    run = _run(toy_config(str(tmp_path)), tasks)
    with pytest.raises(FloatingPointError, match=r"step 0 \(one\).*learning_rate"):
        run.advance()
    assert all(bool(torch.isfinite(p).all()) for module in run.modules.values() for p in module.parameters())
    run.close()


def test_a_checkpoint_of_other_heads_is_refused(tmp_path: Path) -> None:
    _finish(toy_config(str(tmp_path)))
    with pytest.raises(ValueError, match=r"other heads: one\.bias"):
        _run(toy_config(str(tmp_path)), [ToyTask("one", nn.Linear(WIDTH, WIDTH, bias=False)), _tasks()[1]])
    with pytest.raises(ValueError, match=r"one\.weight has shape \(5, 5\), not \(6, 5\)"):
        _run(toy_config(str(tmp_path)), [ToyTask("one", nn.Linear(WIDTH, WIDTH + 1)), _tasks()[1]])
    assert (tmp_path / CHECKPOINT).exists()


def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path: Path) -> None:
    _finish(toy_config(str(tmp_path)))
    (tmp_path / CHECKPOINT).write_bytes(b"{")
    with pytest.raises(ValueError, match=rf"{CHECKPOINT} is damaged .* remove .* and start again"):
        _run(toy_config(str(tmp_path)), _tasks())
