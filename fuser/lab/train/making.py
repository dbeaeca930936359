"""Makes a bundle by a recipe, stage after stage: one that is done is skipped, one that was stopped goes on.

The directory of each stage has a record, `stage.json`: what the stage's result depends on, written before it begins,
and once it is done what it made. A stage that has made something by other values than the recipe's is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from fuser.atomic import atomic_write, directory_lock, write_json
from fuser.bundle.bundle import Bundle
from fuser.bundle.plans import PLANS_FILE
from fuser.lab.calibrate import calibrated_for
from fuser.lab.evaluate.settings import Setup
from fuser.lab.profile.run import ProfileRun
from fuser.lab.train.answerable import fit_answerable
from fuser.lab.train.cache import CacheIncomplete, item_key
from fuser.lab.train.checkpoint import checkpoint_step
from fuser.lab.train.config import TrainConfig
from fuser.lab.train.prepare import fill_cache, fit_selection, open_cache
from fuser.lab.train.recipe import SELECTION, Recipe, Stage
from fuser.lab.train.run import CHECKPOINT
from fuser.lab.train.run import train as train_here
from fuser.lab.train.selection import load_scorer
from fuser.lab.train.sources import read_sources

RECORD = "stage.json"
REPORT = "report.json"
_TEXTS = "hash of its training texts"

Train = Callable[[TrainConfig, Progress, float], dict[str, Any]]
"""`fuser.lab.train.run.train`, or the same in several processes."""
Made = dict[str, str]
"""What the stages so far have made: hashes, by what a record calls them."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a stage is. step, steps: of a training stage, else 0. begun: it has a record."""

    stage: Stage
    done: bool
    begun: bool
    step: int
    steps: int


def standings(recipe: Recipe) -> list[Standing]:
    """How far every stage is; nothing is run.

    Raises:
        ValueError: a stage was begun with other values, or a file of its is damaged.
    """
    found, made = [], _made_before(recipe)
    for stage in recipe.stages:
        record = _Record(stage, made)
        checkpoint = stage.folder / CHECKPOINT
        step = checkpoint_step(checkpoint) if stage.kind == "train" and checkpoint.exists() else 0
        steps = stage.config.answer.steps if stage.kind == "train" else 0
        found.append(Standing(stage, record.done is not None, record.begun, step, steps))
        made |= record.made
    return found


def make(
    recipe: Recipe, progress: Progress, max_minutes: float = math.inf, train: Train = train_here
) -> dict[str, Any]:
    """Run the stages that are not done, until all are or time is up; then the bundle is in `recipe.output`.

    With no time left a training stage that has been begun still writes its bundle as it is.

    Returns:
        Plain JSON values: finished; where it is, the hash and directory of the bundle; else the `stage` that is next
        and what is known of it.

    Raises:
        ValueError: a stage was begun with other values, or asks for what does not fit the data or the models.
        FloatingPointError: the loss of a training stage is not finite any more.
        RuntimeError: another process is at it.
    """
    deadline = time.monotonic() + 60 * max_minutes
    with directory_lock(recipe.work, "training in"):
        made = _made_before(recipe)
        for stage in recipe.stages:
            record = _Record(stage, made)
            if record.done is None:
                minutes = max(0.0, (deadline - time.monotonic()) / 60)
                if minutes == 0 and not (stage.kind == "train" and (stage.folder / CHECKPOINT).exists()):
                    return {"finished": False, "stage": stage.name}
                progress.console.print(f"stage {stage.name} ({stage.kind})", markup=False, highlight=False)
                record.begin()
                done = _made(stage, progress, deadline, train)
                if not done["finished"]:
                    return {"stage": stage.name} | done
                record.end(done)
            made |= record.made
        last = recipe.stages[-1].config
        bundle = last.output if recipe.stages[-1].kind != "fit" else last.init
        written = {"bundle": _copy(bundle, recipe.output)} if bundle else {}
    return {"finished": True} | written | {"output": str(recipe.output), "work": str(recipe.work)}


class _Record:
    """A stage's record.

    Args:
        made: by the stages before it.

    Attributes:
        done: what it said when it was done, or None. begun: there is a record.

    Raises:
        ValueError: the stage was begun with other values, or the record is damaged.
    """

    def __init__(self, stage: Stage, made: Made) -> None:
        self._stage, self._path = stage, stage.folder / RECORD
        self._depends_on = stage.depends_on | ({} if stage.kind == "fit" else made)
        kept = _read(self._path)
        self.begun = kept is not None
        if kept is not None and kept["done"] is None and not (stage.folder / CHECKPOINT).exists():
            kept = None  # nothing is made yet that the stage would go on with
        self.done: dict[str, Any] | None = None if kept is None else kept["done"]
        self._texts: dict[str, str] = {}
        if kept is not None:
            self._texts = {key: value for key, value in kept["depends_on"].items() if key == _TEXTS}
            self._check(kept["depends_on"], self._depends_on | self._texts)

    @property
    def made(self) -> Made:
        """What the stage has made, for those that come after it."""
        if self.done is None:
            return {}
        if self._stage.kind == "fit":
            return {"hash of the selection before it": self.done["selection"]}
        return {"hash of the bundle before it": self.done["bundle"]}

    def begin(self) -> None:
        """Keep what the stage depends on, the texts it reads with it."""
        if self._stage.kind != "profile":
            texts = {_TEXTS: _texts(self._stage.config)}
            self._check(self._texts or texts, texts)
            self._texts = texts
        self._write(None)

    def end(self, done: Mapping[str, Any]) -> None:
        self.done = dict(done)
        self._write(self.done)

    def _write(self, done: dict[str, Any] | None) -> None:
        self._stage.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._path, {"depends_on": self._depends_on | self._texts, "done": done})

    def _check(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        if found := _difference(then, now):
            raise ValueError(
                f"stage {self._stage.name}: {found} since {self._stage.folder} was begun: set it back, name another "
                "`work`, or remove that directory"
            )


def _made_before(recipe: Recipe) -> Made:
    return {"hash of the bundle before it": Bundle.load(recipe.init).hash} if recipe.init else {}


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {"depends_on": dict(kept["depends_on"]), "done": kept["done"]}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove {path.parent} and start again") from error


def _difference(then: Any, now: Any, key: str = "") -> str | None:
    """The first value that differs, in words; None where there is none."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in sorted(then.keys() | now.keys()):
            whole = f"{key}.{name}" if key else name
            if name not in now or name not in then:
                return f"{whole} is {'new' if name in now else 'gone'}"
            if found := _difference(then[name], now[name], whole):
                return found
        return None
    return None if then == now else f"{key} was {reprlib.repr(then)} and is {reprlib.repr(now)}"


def _texts(config: TrainConfig) -> str:
    """Hash of all items that the config's sources give, in order."""
    sources = read_sources(config)
    keys = [[item_key(item) for item in split] for split in (sources.train, sources.validation)]
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()


def _made(stage: Stage, progress: Progress, deadline: float, train: Train) -> dict[str, Any]:
    """What a stage has made; or that it is not finished, and what is known of it. deadline: of `time.monotonic`."""

    def minutes() -> float:
        return max(0.0, (deadline - time.monotonic()) / 60)

    config, output = stage.config, Path(stage.config.output)
    reads = stage.kind in ("train", "calibrate", "answerable")
    if reads and (missing := _not_cached(config, progress, minutes())):
        return {"finished": False, "items left to cache": missing}
    if stage.kind == "train":
        return train(config, progress, minutes())
    if stage.kind == "fit":
        path = stage.folder / SELECTION
        found = fit_selection(config, path, progress)
        return {"finished": True, "selection": load_scorer(path).digest()} | found
    if stage.kind == "calibrate":
        calibrated = calibrated_for(Bundle.load(config.init), config, progress)
        return {"finished": True, "bundle": calibrated.save(output)}
    if stage.kind == "answerable":
        bundle, (cache, _) = Bundle.load(config.init), open_cache(config)
        geometry = bundle.config.sharer_geometry
        head, told = fit_answerable(cache, cache.documents, geometry, config.answer.abstain)
        saved = bundle.with_answerable(head).save(output)
        _copy_plans(config.init, output)
        return {"finished": True, "bundle": saved} | told
    copied = _copy(config.init, output)
    setup = Setup(config.sharer, config.receiver, config.dtype, config.device, str(stage.folder))
    run = ProfileRun(output, config.profile, setup)
    if not run.measure(progress, minutes()):
        return {"finished": False}
    run.table(output).save(output)
    write_json(stage.folder / REPORT, run.report())
    return {"finished": True, "bundle": copied}


def _not_cached(config: TrainConfig, progress: Progress, minutes: float) -> int:
    """Have the Sharer read the texts that it has not read yet; returns the items left."""
    try:
        open_cache(config)
        return 0
    except CacheIncomplete:
        return fill_cache(config, progress, minutes)


def _copy(bundle: str, directory: Path) -> str:
    """A bundle and its table of plans, if it has one, in another directory; returns the hash."""
    found = Bundle.load(bundle).save(directory)
    _copy_plans(bundle, directory)
    return found


def _copy_plans(bundle: str, directory: Path) -> None:
    plans = Path(bundle) / PLANS_FILE
    if plans.exists():
        with atomic_write(directory / PLANS_FILE) as partial:
            shutil.copyfile(plans, partial)
