"""A training run: step after step over its tasks, logged, evaluated and kept, so that it can stop at any moment.

What a step does depends on its number alone, and a checkpoint holds all that steps change: on one machine's CPU a run
that was killed goes on with the very losses of the unbroken one. Tasks take turns.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import nn

from fuser.heads.compact import CompactFuse
from fuser.lab.train.checkpoint import load_checkpoint, save_checkpoint
from fuser.lab.train.config import AnswerConfig, TrainConfig
from fuser.lab.train.log import RunLog
from fuser.lab.train.prepare import prepare, save, tasks_of
from fuser.lab.train.task import Control, TrainBatch, TrainTask
from fuser.lab.train.world import World

CHECKPOINT = "checkpoint.safetensors"
_MAX_NORM = 1.0  # of all gradients together
_FLOOR = 0.05  # of the learning rate, at the end
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
        ValueError: a batch that the workers cannot share equally, a task with fewer examples than a batch, or a
            checkpoint of other heads.
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
                    row[control] = self._validated(task, control)
            self._write("validation", row)

    def close(self) -> None:
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
        own, number = divmod(self.step, len(self._tasks))  # of the step among the task's own
        name, task = list(self._tasks.items())[number]
        self._set_pace()
        epoch, within = divmod(own, len(self._epochs[name][1]))  # batches are as many in every epoch
        batch = self._epoch(name, epoch)[within].shard(self.world.rank, self.world.size)
        torch.manual_seed(seed_of(self.config.seed, self.step, self.world.rank))
        control = task.control_at(own)
        self._optimizer.zero_grad()
        outcome = task.loss(batch, control)
        outcome.loss.backward()
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        self.world.average([p.grad for p in parameters if p.grad is not None])
        sums = self.world.total([float(outcome.loss.detach()), float(outcome.exact.float().mean())])
        mean, exact = (value / self.world.size for value in sums)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, _MAX_NORM))
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise FloatingPointError(
                f"step {self.step} ({name}) has loss {mean} and gradient {norm}: lower answer.learning_rate, "
                f"remove {self._work} and start again"
            )
        self._optimizer.step()
        row = {"task": name, "control": control, "loss": mean, "exact": exact, "gradient": norm}
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
            if isinstance(module, CompactFuse):
                module.anneal(self.step)

    def _validated(self, task: TrainTask[Any], control: Control) -> dict[str, float | int]:
        """Mean loss and share of exact answers over all validation examples, the batches dealt out to the workers."""
        loss = exact = count = 0.0
        with torch.no_grad():
            for part in task.validation(self._settings.batch)[self.world.rank :: self.world.size]:
                outcome = task.loss(part, control)
                loss += float(outcome.loss) * len(part)
                exact += float(outcome.exact.sum())
                count += len(part)
        loss, exact, count = self.world.total([loss, exact, count])
        return {"loss": loss / max(count, 1), "exact": exact / max(count, 1), "count": int(count)}

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


def new_optimizer(modules: Mapping[str, nn.Module], settings: AnswerConfig) -> torch.optim.Optimizer:
    """AdamW over everything in the modules that takes a gradient, each parameter once, without decay.

    Groups keep their full rate as `initial_lr`, which each step scales.
    """
    rates = {
        "prefix": settings.prefix_learning_rate,
        "gate_logit": settings.gate_learning_rate,
        "": settings.learning_rate,
    }
    groups: dict[str, dict[nn.Parameter, None]] = {ending: {} for ending in rates}
    for module in modules.values():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                ending = next(ending for ending in rates if name.endswith(ending))
                groups[ending][parameter] = None
    return torch.optim.AdamW(
        [
            {"params": list(group), "lr": rates[ending], "initial_lr": rates[ending]}
            for ending, group in groups.items()
            if group
        ],
        weight_decay=0.0,
    )


def learning_rate_factor(step: int, warmup: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < warmup:
        return (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * share))


def seed_of(seed: int, step: int, rank: int = 0) -> int:
    """The random seed of one worker's step: different for every (seed, step, rank) of a run."""
    return (seed * 1_000_003 + step) * 4096 + rank
