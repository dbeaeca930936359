"""A training recipe: the stages that make a bundle, read once from TOML.

A recipe is a base and a list of `[[stage]]` tables, each of which has a `name`, a `kind`, and the keys of the base that
it changes (`fuser.lab.overrides.merged`). The base has the keys of `fuser.lab.train.config.TrainConfig`, but for its
sources, which are named: `[sources.NAME]`. A stage starts from the bundle of the stage before it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from fuser.config import BadConfig, from_dict, to_dict
from fuser.lab.overrides import merged, with_values
from fuser.lab.train.config import SourceConfig, TrainConfig
from fuser.models.directory import bundle_directory

Kind = Literal["fit", "train", "calibrate", "profile", "answerable"]
"""Of a stage. fit: the attention heads that a learnt selection follows. train: heads, on answers. calibrate: the bases
of the bundle's codecs. profile: its table of plans. answerable: what tells whether documents hold an answer."""

BUNDLE = "bundle"
SELECTION = "selection.safetensors"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # it is a directory and a part of a dotted key
_OF_RECIPE = ("work", "output", "init")
_PLACES = ("work", "output", "init", "scorer", "cache", "device")
"""May change without changing what a stage makes."""
_READ = ("sharer", "sharer_prompt", "sources", "drafts", "selection", "seed", "dtype")
"""Of whoever reads training texts."""
_KEYS: Mapping[Kind, tuple[str, ...]] = {
    "fit": (*_READ, "fit"),
    "calibrate": (*_READ, "dials", "calibrate"),
    "answerable": (*_READ, "answer"),
    "profile": ("sharer", "receiver", "dtype", "profile"),
}
"""What a stage's result depends on; for training all but the tables of the other kinds."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, whole. config: what it is told, with its paths. sources: names of `config.sources`."""

    name: str
    kind: Kind
    config: TrainConfig
    sources: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return Path(self.config.work)

    @property
    def depends_on(self) -> dict[str, Any]:
        """The plain JSON values that the stage's result depends on; a stage that was begun is refused others."""
        whole: dict[str, Any] = json.loads(json.dumps(to_dict(self.config)))
        whole["sources"] = dict(zip(self.sources, whole["sources"], strict=True))
        keys = _KEYS.get(self.kind) or tuple(whole.keys() - {*_PLACES, *_KEYS})
        return {"kind": self.kind} | {key: whole[key] for key in sorted(keys)}


@dataclass(frozen=True, slots=True)
class Recipe:
    """See the module.

    work: directory of the stages' directories. output: directory of the finished bundle. init: directory of a bundle to
    start from, in place of the closed form.
    """

    work: Path
    output: Path
    init: str
    stages: tuple[Stage, ...]

    @classmethod
    def load(cls, path: Path, assignments: Iterable[str] = ()) -> Recipe:
        """Read a TOML file; relative paths in it are taken from the working directory.

        Args:
            assignments: `dotted.key=value` to replace values; keys of a stage are `stage.NAME.key`.

        Raises:
            BadConfig: an unknown or missing key, or a wrong type, by name; or stages that do not follow each other.
        """
        try:
            table = with_values(tomllib.loads(path.read_text(encoding="utf-8")), assignments)
            return cls.of(table)
        except ValueError as error:  # not TOML, not UTF-8, or not a recipe
            raise BadConfig(f"{path}: {error}") from error

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Recipe:
        """A recipe of plain values. Raises BadConfig as `load` does."""
        base = dict(table)
        stages = base.pop("stage", None)
        if not isinstance(stages, list) or not stages or not all(isinstance(each, dict) for each in stages):
            raise BadConfig("a recipe needs at least one [[stage]]")
        own = {name: base.pop(name, "") for name in _OF_RECIPE}
        for name in _OF_RECIPE:
            if not isinstance(own[name], str):
                raise BadConfig(f"{name}: a directory is expected, got {own[name]!r}")
            if not own[name] and name != "init":
                raise BadConfig(f"missing key {name}")
        work, output = Path(own["work"]), Path(own["output"])
        init = str(bundle_directory(own["init"])) if own["init"] else ""
        if init and Path(init) == output:
            raise BadConfig(
                "init and output are one directory: the recipe would overwrite what it starts from"
            )
        made: list[Stage] = []
        scorer, bundle = "", init
        for each in stages:
            stage = _stage(base, each, work, bundle, scorer)
            if any(stage.name == other.name for other in made):
                raise BadConfig(f"stage {stage.name}: the name stands there twice")
            if stage.kind == "fit":
                scorer = str(stage.folder / SELECTION)
            else:
                bundle = stage.config.output
            made.append(stage)
        return cls(work, output, init, tuple(made))


def _stage(base: Mapping[str, Any], table: Mapping[str, Any], work: Path, init: str, scorer: str) -> Stage:
    """A stage that starts from the bundle `init` and chooses by the selection in the file `scorer`, where they are."""
    own = dict(table)
    name, kind = own.pop("name", None), own.pop("kind", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadConfig(f"a stage needs a name of letters, digits, - and _; got {name!r}")
    if kind not in get_args(Kind):
        raise BadConfig(f"stage {name}: kind is one of {', '.join(get_args(Kind))}; got {kind!r}")
    try:
        whole = merged(base, own)
        if wrong := sorted({*_OF_RECIPE, "scorer"} & whole.keys()):
            raise BadConfig(f"unknown key {wrong[0]}")
        sources = _sources(whole.get("sources", {}))
        folder = work / name
        places = {"work": str(folder), "output": str(folder / BUNDLE), "init": init}
        config = from_dict(TrainConfig, whole | places | {"sources": list(sources.values())})
        learnt = config.selection.rule == "learnt"
        if learnt and kind != "fit":
            config = replace(config, scorer=scorer)
        if kind != "profile" and not sources:
            raise BadConfig("no data: give at least one [sources.NAME] with documents")
        if kind in ("calibrate", "profile", "answerable") and not config.init:
            raise BadConfig(
                "there is no bundle before it: put a stage of kind train there, or name one with init"
            )
        if kind == "fit" and not learnt:
            raise BadConfig('nothing to fit: selection.rule is not "learnt"')
        if learnt and kind == "train" and not (config.scorer or config.init):
            raise BadConfig('selection.rule is "learnt": put a stage of kind fit before it')
    except BadConfig as error:
        raise BadConfig(f"stage {name}: {error}") from error
    return Stage(name, kind, config, tuple(sources))


def _sources(table: Any) -> dict[str, Any]:
    """The sources that have documents, by name; the others are checked too."""
    if not isinstance(table, Mapping):
        raise BadConfig("sources: one table each is expected, [sources.NAME]")
    read = {name: from_dict(SourceConfig, raw, f"sources.{name}") for name, raw in table.items()}
    return {name: table[name] for name, source in read.items() if source.documents}
