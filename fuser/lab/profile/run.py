"""A profile from a bundle and training data to its table; stopped at any time, it goes on when called again.

Two stages: the loss of the right answers screens every plan cheaply; the plans nearest to the front of loss against
bytes then answer, with their controls, and the front of what they transfer is the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.progress import Progress

from fuser.bundle.bundle import Bundle
from fuser.bundle.plans import BadTable, PlanRow, PlanTable
from fuser.config import to_dict
from fuser.lab.data.document import Item
from fuser.lab.data.load import load
from fuser.lab.evaluate.deadline import Deadline, OutOfTime
from fuser.lab.evaluate.fit import unfit, unfit_choice
from fuser.lab.evaluate.models import Dtype, Model
from fuser.lab.evaluate.plans import registry_of
from fuser.lab.evaluate.prediction import PredictionLog
from fuser.lab.evaluate.provenance import file_hash, machine, versions
from fuser.lab.evaluate.questions import digest, draw, draw_choices
from fuser.lab.profile.excerpts import ExcerptProfile
from fuser.lab.profile.grid import Dials, grid
from fuser.lab.profile.report import Answers, as_json, best
from fuser.lab.profile.rows import Profiled, Row
from fuser.lab.profile.screen import ScreenLog
from fuser.lab.profile.shared import SharedProfile
from fuser.lab.profile.source import check_training
from fuser.models.directory import cache_directory
from fuser.models.load import DeviceName
from fuser.prompts.choice import ChoiceItem
from kvwire.plan import Plan

SEED = 7_001
"""Of the questions drawn: not the seed of any training run that ships."""


@dataclass(frozen=True, slots=True)
class ProfileConfig:
    """What a profile is told.

    data: as of an evaluation; training data alone. Questions over documents profile excerpts, questions with choices
    shared slices. questions: answered. screened: of them, those of the screen. plans: answered, at most, besides the
    raw one. work: where answers and what the Sharer reads are kept.
    """

    bundle: Path
    data: str = "records:train"
    questions: int = 200
    screened: int = 48
    plans: int = 12
    dials: Dials = field(default_factory=Dials)
    seed: int = SEED
    batch: int = 16
    max_document_chars: int = 1200
    dtype: Dtype = "float32"
    device: DeviceName = "auto"
    work: Path | None = None
    sharer: str | None = None
    receiver: str | None = None


class ProfileRun:
    """One profile. Reads the data and draws its questions at once; models are loaded when they are needed.

    Raises:
        ValueError: data kept from training, or bad data; no question left; a value of a dial that the bundle does not
            have; or a model that the bundle was not made for.
        BadBundle: the bundle cannot be read. Unsupported: it makes no slices of the data's kind.
    """

    def __init__(self, config: ProfileConfig) -> None:
        check_training(config.data)
        self._config = config
        self._bundle = bundle = Bundle.load(config.bundle)
        pair = bundle.config
        self._sharer = Model(config.sharer or pair.sharer.name, config.dtype, config.device)
        self._receiver = Model(config.receiver or pair.receiver.name, config.dtype, config.device)
        self._sharer.require(pair.sharer, "the bundle's Sharer")
        self._receiver.require(pair.receiver, "the bundle's Receiver")
        self._profiled, drawn = self._draw()
        self._read = False
        registry = registry_of(bundle)
        self.plans = grid(bundle, self._profiled.kind, registry.names(), config.dials)
        codecs = [[codec.name, codec.parameters_hash] for codec in registry.refs()]
        key = [bundle.hash, drawn, codecs, config.dtype, config.screened]
        key += [] if (device := self._receiver.device.type) == "cpu" else [device]  # its last bits differ
        self._questions_digest = drawn
        folder = self._work / digest(key)[:16]
        self._screen = ScreenLog(folder / "screen.jsonl")
        self._log = PredictionLog(folder / "predictions.jsonl")

    def measure(self, progress: Progress, max_minutes: float = math.inf) -> bool:
        """Screen and answer what is not done yet; returns whether all is done."""
        deadline = Deadline(max_minutes)
        try:
            self._profiled.read(progress, deadline)
            self._read = True
            done = self._screen.done()
            todo = [plan for plan in self.plans if plan not in done]
            task = progress.add_task("screening plans", total=len(self.plans))
            progress.advance(task, len(self.plans) - len(todo))
            for plan in todo:
                deadline.check()
                self._screen.append(self._profiled.screen(plan, self._config.screened))
                progress.advance(task)
            for row in self._rows():
                self._answer(row, progress, deadline)
        except OutOfTime:
            return False
        return True

    @property
    def complete(self) -> bool:
        """Whether every plan is screened, and every row answered."""
        return self._screened and all(self._answers.complete(row) for row in self._rows())

    @property
    def worth(self) -> list[PlanRow]:
        """What each plan is worth that all questions are answered with; none until `measure` has been called."""
        if not (self._read and self._screened):
            return []
        answers, raw = self._answers, Row("plan", self.plans[0])
        needed = [raw, raw.control, Row("receiver")]
        if not all(answers.complete(row) for row in needed):
            return []
        rows = [Row("plan", plan) for plan in self._chosen]
        return [
            answers.plan(row.plan)
            for row in rows
            if row.plan is not None and answers.complete(row) and answers.complete(row.control)
        ]

    def table(self, other_kinds: Path | None = None) -> PlanTable:
        """The plans that nothing beats, as an edge picks from them.

        Args:
            other_kinds: a bundle's directory, whose table's rows of other kinds of slice are kept.
        """
        kind = self._profiled.kind
        kept: tuple[PlanRow, ...] = ()
        measured: dict[str, Any] = {}
        if other_kinds is not None:
            try:
                before = PlanTable.load(other_kinds, self._bundle.hash)
                kept = tuple(row for row in before.rows if row.kind is not kind)
                measured = {name: value for name, value in before.measured.items() if name != kind.value}
            except BadTable:
                pass  # none yet, or of a bundle that was there before
        return PlanTable(
            self._bundle.hash, (*kept, *best(self.worth)), measured | {kind.value: self._about()}
        )

    def report(self, command: Sequence[str] = ()) -> dict[str, Any]:
        """All that is measured so far as plain JSON values; `command` is how it was called."""
        worth, answers = self.worth, self._answers
        rivals = self._profiled.rivals(self._chosen) if self._screened else []
        screened = [one for one in self._screen.screened if one.plan in set(self.plans)]
        return {
            "complete": self.complete,
            "kind": self._profiled.kind.value,
            "plans": [to_dict(row) | {"label": str(row.plan)} for row in worth],
            "rivals": [
                as_json(answers.rival(row)) for row in rivals if not row.mismatched and answers.complete(row)
            ],
            "table": [str(row.plan) for row in best(worth)],
            "screen": [to_dict(one) | {"label": str(one.plan)} for one in screened],
            "grid": len(self.plans),
            "bundle": {"path": str(self._config.bundle), "sha256": self._bundle.hash},
            "command": list(command),
            **self._about(),
        }

    def _about(self) -> dict[str, Any]:
        config = self._config
        return {
            "data": {
                "source": config.data,
                "sha256": file_hash(config.data),
                "questions": len(self._profiled.questions),
                "questions_sha256": self._questions_digest,
                "documents": len(set(self._profiled.groups.values())),
                "seed": config.seed,
            },
            "dtype": config.dtype,
            "device": self._receiver.device.type,
            "machine": machine(),
            "versions": versions(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _answer(self, row: Row, progress: Progress, deadline: Deadline) -> None:
        done, questions = self._log.done(row.name), self._profiled.questions
        todo = [index for index, name in enumerate(questions) if name not in done]
        task = progress.add_task(row.name, total=len(questions), completed=len(done))
        if todo:
            deadline.check()
            for batch in self._profiled.answers(row, todo):
                self._log.append(batch)
                progress.advance(task, len(batch))
                deadline.check()

    def _rows(self) -> list[Row]:
        """What is answered, the raw plan and the Receiver alone first: all others are compared with them."""
        plans = [Row("plan", plan) for plan in self._chosen]
        rivals = self._profiled.rivals(self._chosen)
        return [*(row for plan in plans[:1] for row in (plan, plan.control)), *rivals] + [
            row for plan in plans[1:] for row in (plan, plan.control)
        ]

    @property
    def _screened(self) -> bool:
        return self._screen.done() >= set(self.plans)

    @property
    def _chosen(self) -> list[Plan]:
        """The plans that are answered: the raw one, then those nearest to the front."""
        raw, asked = self.plans[0], set(self.plans)
        near = [plan for plan in self._screen.nearest(self._config.plans, asked) if plan != raw]
        return [raw, *near]

    @property
    def _answers(self) -> Answers:
        return Answers(self._log.predictions, self._profiled, self.plans[0])

    @property
    def _work(self) -> Path:
        return self._config.work or cache_directory() / "profile"

    def _draw(self) -> tuple[Profiled, str]:
        """The questions, as their kind of slice is measured, and their digest."""
        config, bundle = self._config, self._bundle
        limit = config.questions if config.data.startswith("records:") else None
        found = load(config.data, "auto", limit, config.seed, max_document_chars=config.max_document_chars)
        choices = [item for item in found if isinstance(item, ChoiceItem)]
        documents = [item for item in found if isinstance(item, Item)]
        if choices:
            fits = unfit_choice(bundle, self._sharer, self._receiver, config.max_document_chars)
            items, _ = draw_choices(choices, config.questions, config.seed, fits)
            slices = self._work / ("slices" if config.dtype == "float32" else f"slices-{config.dtype}")
            shared = SharedProfile(bundle, self._sharer, self._receiver, items, slices)
            return shared, digest([asdict(item) for item in items])
        if not documents:
            raise ValueError(f"{config.data} holds instructions: nothing there can be marked right or wrong")
        drawn = draw(
            documents,
            config.questions,
            config.seed,
            unfit(bundle, self._sharer, self._receiver, config.max_document_chars),
        )
        excerpts = ExcerptProfile(
            bundle, self._sharer, self._receiver, drawn.questions, self._work / "read", config.batch
        )
        return excerpts, drawn.digest
