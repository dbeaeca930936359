"""A training run: step after step over its tasks, logged, evaluated and kept, so that it can stop at any moment.

What a step does depends on its number alone (`fuser.lab.train.schedule`), and a checkpoint holds all that steps change:
on one machine's CPU a run that was killed goes on with the very losses of the unbroken one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import nn

from fuser.heads.fuse import FuseHead
from fuser.lab.train.checkpoint import load_checkpoint, save_checkpoint
from fuser.lab.train.config import TrainConfig
from fuser.lab.train.log import RunLog
from fuser.lab.train.optimizer import new_optimizer
from fuser.lab.train.schedule import learning_rate_factor, seed_of, turns
from fuser.lab.train.task import TrainBatch, TrainTask
from fuser.lab.train.validation import validate
from fuser.lab.train.world import World

CHECKPOINT = "checkpoint.safetensors"
_MAX_NORM = 1.0  # of all gradients together
_TEXT_EVERY = 4  # evaluations: reading the documents as text costs most and changes least


class TrainRun:
    """One run, from step 0 or from its checkpoint, which has to be of the same config and data.

    Args:
        config: of the run; `config.work` holds its checkpoint and logs.
        tasks: those that have examples.
        world: the workers; every one makes its own `TrainRun` of equal tasks.

    Attributes:
        modules: what is trained, by the bundle's names. step: steps that are done.

    Raises:
        ValueError: a batch that the workers cannot share equally, a task with fewer examples than a batch, a `[mix]`
            that does not fit the tasks, or a checkpoint of other heads.
    """

    def __init__(
        self,
        config: TrainConfig,
        tasks: Sequence[TrainTask[Any]],
        progress: Progress,
        world: World | None = None,
    ) -> None:
        self.config = config
        self.world = world or World.current()
        self._settings = config.answer
        self._work = Path(config.work)
        self._progress = progress
        self._tasks = {task.name: task for task in tasks}
        self._turns = turns(tuple(self._tasks), config.mix, self._settings.steps)
        self._epochs: dict[str, tuple[int, Sequence[TrainBatch]]] = {}
        self.modules: dict[str, nn.Module] = {}
        for task in tasks:
            self.modules |= task.modules()
        self._check()
        self._optimizer = new_optimizer(self.modules, config.answer)
        path = self._work / CHECKPOINT
        resumed = self.world.any(self.world.rank == 0 and path.exists())  # asked before worker 0 writes one
        self.step = load_checkpoint(path, self.modules, self._optimizer) if resumed else -1
        self._log = RunLog(self._work, self.step) if self.world.rank == 0 else None
        if not resumed:
            self._start()

    def advance(self, max_minutes: float = math.inf) -> bool:
        """Go on until the last step or until time is up, and keep what was reached; returns whether all is done."""
        settings = self._settings
        deadline = time.monotonic() + 60 * max_minutes
        bar = self._progress.add_task("training", total=settings.steps, completed=self.step)
        while self.step < settings.steps and not self.world.any(time.monotonic() > deadline):
            number, within = divmod(self.step, settings.evaluate_every)
            if within == 0:
                self.evaluate(with_text=number % _TEXT_EVERY == 0)
            loss = self._one_step()
            self.step += 1
            self._progress.update(bar, completed=self.step, description=f"training, loss {loss:.3f}")
            if self.step % settings.checkpoint_every == 0:
                self._keep()
        self._keep()
        finished = self.step >= settings.steps
        if finished:
            self.evaluate(with_text=True)
        return finished

    def evaluate(self, with_text: bool) -> None:
        """Log loss and share of exact answers on every task's validation examples, in all of its controls."""
        for module in self.modules.values():
            module.eval()
        for name, task in self._tasks.items():
            row: dict[str, Any] = {"task": name}
            for control in task.controls:
                if control != "text" or with_text:
                    row[control] = validate(task, control, self._settings.batch, self.world)
            self._write("validation", row)

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()

    def _check(self) -> None:
        batch = self._settings.batch
        self.world.check(batch)
        for name in self._tasks:
            if not self._epoch(name, 0):
                raise ValueError(f"the {name} task has fewer training examples than one batch of {batch}")

    def _start(self) -> None:
        """First values, set by worker 0 and given to all; kept before the first step, so they are set once."""
        if self.world.rank == 0:
            torch.manual_seed(seed_of(self.config.seed, -1))
            for name, task in self._tasks.items():
                self._write("start", {"task": name, **task.start(self._progress)})
        self.world.share(self.modules.values())
        self.step = 0
        self._keep()

    def _one_step(self) -> float:
        turn = self._turns[self.step]
        task = self._tasks[turn.task]
        self._set_pace()
        batch = self._batch(turn.task, turn.own).shard(self.world.rank, self.world.size)
        torch.manual_seed(seed_of(self.config.seed, self.step, self.world.rank))
        control = task.control_at(turn.own)
        self._optimizer.zero_grad()
        outcome = task.loss(batch, control)
        loss = outcome.loss
        for module in self.modules.values():
            if self.config.gate_price and isinstance(module, FuseHead):
                loss = loss + self.config.gate_price * module.gate_cost()
        loss.backward()
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        self.world.average([p.grad for p in parameters if p.grad is not None])
        sums = self.world.total([float(outcome.loss.detach()), float(outcome.exact.float().mean())])
        mean, exact = (value / self.world.size for value in sums)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, _MAX_NORM))
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise FloatingPointError(
                f"step {self.step} ({turn.task}) has loss {mean} and gradient {norm}: lower answer.learning_rate, "
                f"remove {self._work} and start again"
            )
        self._optimizer.step()
        row = {"task": turn.task, "control": control, "loss": mean, "exact": exact, "gradient": norm}
        self._write("step", row)
        return mean

    def _set_pace(self) -> None:
        """Learning rates and gate temperatures of this step, and modules in training mode."""
        settings = self._settings
        factor = learning_rate_factor(self.step, settings.warmup, settings.decay_steps or settings.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        for module in self.modules.values():
            module.train()
            if isinstance(module, FuseHead):
                module.anneal(self.step)

    def _batch(self, name: str, own: int) -> TrainBatch:
        count = len(self._epochs[name][1])  # the same for every epoch
        return self._epoch(name, own // count)[own % count]

    def _epoch(self, name: str, number: int) -> Sequence[TrainBatch]:
        kept = self._epochs.get(name)
        if kept is None or kept[0] != number:
            seed = self.config.seed + number
            kept = number, self._tasks[name].epoch(self._settings.batch, seed)
            self._epochs[name] = kept
        return kept[1]

    def _keep(self) -> None:
        if self.world.rank == 0:
            save_checkpoint(self._work / CHECKPOINT, self.modules, self._optimizer, self.step)

    def _write(self, stage: str, values: dict[str, Any]) -> None:
        if self._log is not None:
            self._log.write(stage, self.step, values)
