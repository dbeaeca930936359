"""Settings of an evaluation: from TOML (`ops/examples/eval.toml` has every key), and from the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_type_hints

from fuser.bundle.bundle import Bundle
from fuser.config import BadConfig, from_dict
from fuser.lab.evaluate.evaluation import Given
from fuser.lab.evaluate.models import Dtype, Model
from fuser.lab.overrides import with_lists, with_values
from fuser.models.directory import cache_directory
from fuser.models.load import DeviceName
from kvwire.errors import InvalidRequest
from kvwire.plan import Plan

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setup:
    """Who answers, and where.

    sharer, receiver: names or folders, where the bundle's own names are not enough. dtype: what both models compute in.
    device: where they do. work: directory of answers and of what the Sharer reads; empty is beside the fetched models.
    """

    sharer: str = ""
    receiver: str = ""
    dtype: Dtype = "float32"
    device: DeviceName = "auto"
    work: str = ""

    def given(self, path: Path, place: str, batch: int, identical: str = "") -> Given:
        """A bundle with its two models; nothing of them is loaded but their configs.

        Args:
            place: directory below `work`, or beside the fetched models. identical: a bundle's directory, or none.

        Raises:
            ValueError: a model that the bundle was not made for. BadBundle: the bundle cannot be read.
        """
        bundle, other = Bundle.load(path), Bundle.load(Path(identical)) if identical else None
        pair = bundle.config
        sharer = Model(self.sharer or pair.sharer.name, self.dtype, self.device)
        receiver = Model(self.receiver or pair.receiver.name, self.dtype, self.device)
        sharer.require(pair.sharer, "the bundle's Sharer")
        receiver.require(pair.receiver, "the bundle's Receiver")
        if other is not None:
            receiver.require(other.config.sharer, "the Sharer of identical")
            receiver.require(other.config.receiver, "the Receiver of identical")
        work = Path(self.work) if self.work else cache_directory() / place
        read = work / "-".join(["read", *made_in(receiver)])
        read.mkdir(parents=True, exist_ok=True)
        return Given(bundle, sharer, receiver, read, other, batch)


def made_in(model: Model) -> list[str]:
    """What of a model's dtype and device changes the last bits: part of the names of what is kept."""
    device = model.device.type
    return [word for word, usual in ((model.dtype, "float32"), (device, "cpu")) if word != usual]


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    """What is asked, and in which rows.

    data: `records:<split>`, `notes:<split>`, a JSON-lines file or `hf:NAME` (`fuser.lab.data.load`). task: what the
    data asks, `auto` tells it by the fields. limit: questions at most; without one all, of generated documents 200.
    rows: none named runs all that can be run. calibration: training questions with choices, for rows that are fitted.
    identical: a bundle whose Sharer is the Receiver's own model. plans: how slices are sent; none is `raw` and whole.
    drafts: the same for drafts. positions: of an excerpt, every number with every plan; none is what the plans say.
    cases: what questions are asked over (`fuser.lab.data.cases`); none is `plain`. batch: questions at once.
    """

    data: str = "records:heldout"
    task: Literal["auto", "choice", "document"] = "auto"
    limit: int | None = None
    seed: int = 1
    max_document_chars: int = 4000
    rows: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()
    drafts: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()
    cases: tuple[str, ...] = ()
    calibration: str = ""
    identical: str = ""
    batch: int = 16

    def __post_init__(self) -> None:
        least = {"limit": (self.limit,), "max_document_chars": (self.max_document_chars,)}
        for key, values in (least | {"positions": self.positions, "batch": (self.batch,)}).items():
            if wrong := [value for value in values if value is not None and value < 1]:
                raise BadConfig(f"{key}: {wrong[0]} is not 1 or more")
        for key, written in (("plans", self.plans), ("drafts", self.drafts)):
            try:
                plans_of(written)
            except InvalidRequest as error:
                raise BadConfig(f"{key}: {error}") from error

    @property
    def writes(self) -> bool:
        return any(name.startswith("drafted") for name in self.rows)


def plans_of(written: Iterable[str]) -> tuple[Plan, ...]:
    return tuple(map(Plan.parse, written))


def read_settings(kind: type[T], path: Path | None, assignments: Iterable[str]) -> tuple[T, Setup]:
    """A config of some kind and the setup, from one table of both's keys.

    Args:
        path: of a TOML file, or None. assignments: `dotted.key=value`, in place of its values; a list may be given as
            words with commas between.

    Raises:
        BadConfig: an unknown or missing key, or a wrong value, by name.
    """
    try:
        table = {} if path is None else tomllib.loads(path.read_text(encoding="utf-8"))
        table = with_lists(kind, with_values(table, assignments))
        own, others = set(get_type_hints(Setup)), set(get_type_hints(kind))
        if unknown := sorted(table.keys() - own - others):
            raise BadConfig(f"unknown key {unknown[0]}; known are {', '.join(sorted(own | others))}")
        setup = from_dict(Setup, {key: value for key, value in table.items() if key in own})
        return from_dict(kind, {key: value for key, value in table.items() if key in others}), setup
    except ValueError as error:  # not TOML, not UTF-8, or not such a config
        raise BadConfig(str(error) if path is None else f"{path}: {error}") from error
