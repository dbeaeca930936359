"""A whole recipe on the tiny pair: every kind of stage, stopped anywhere, and refused what would change the result."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from fuser.atomic import directory_lock
from fuser.bundle.bundle import Bundle
from fuser.bundle.plans import PlanTable
from fuser.lab.overrides import merged
from fuser.lab.train.log import read_log
from fuser.lab.train.making import RECORD, _Record, make, standings
from fuser.lab.train.recipe import Recipe
from fuser.lab.train.run import TrainRun
from fuser.lab.train.sources import Sources, read_sources
from kvwire.segment import SliceKind
from ops.chaos.tiny_bundle import RECEIVER_PROMPT, SHARER_PROMPT

PROFILE = {"questions": 4, "screened": 2, "plans": 2, "dials": {"codecs": ["transform-2"], "last": [2]}}
STAGES: list[dict[str, Any]] = [
    {"name": "selection", "kind": "fit"},
    {"name": "start", "kind": "train", "fuse": False, "sources": {"sums": {"documents": 0}}},
    {"name": "both", "kind": "train", "seed": 2},
    {"name": "codecs", "kind": "calibrate"},
    {"name": "through", "kind": "train", "answer": {"steps": 2}, "dials": {"codecs": ["raw", "transform-2"]}},
    {"name": "final", "kind": "calibrate"},
    {
        "name": "drafts",
        "kind": "train",
        "drafts": True,
        "answer": {"draft_share": 0.5, "unanswerable_share": 0.2},
        "dials": {"quoted": [0, 4], "codecs": ["raw", "transform-2"]},
    },
    {"name": "draft_codecs", "kind": "calibrate", "drafts": True},
    {"name": "plans", "kind": "profile"},
    {"name": "more_plans", "kind": "profile"},
    {"name": "answerable", "kind": "answerable", "sources": {"near": {"documents": 16}}},
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of texts, and of the one cache that all recipes share."""
    folder = tmp_path_factory.mktemp("making")
    rows = [{"instruction": f"What is {n} and {n}?", "input": "", "output": f"{2 * n}"} for n in range(12)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = [
        {"question": f"Which is {n} and {n}?", "choices": [str(2 * n), str(n + 1), "0", "7"], "answer": 0}
        for n in range(2, 10)
    ]
    choices = folder / "train" / "choices.jsonl"
    choices.parent.mkdir()
    choices.write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    return folder


@pytest.fixture
def table(tiny_sharer: Path, tiny_receiver: Path, shared: Path, tmp_path: Path) -> dict[str, Any]:
    """A recipe as plain values."""
    return table_of(tiny_sharer, tiny_receiver, shared, tmp_path)


@pytest.fixture(scope="module")
def done_before(tiny_sharer: Path, tiny_receiver: Path, shared: Path) -> dict[str, Any]:
    """A recipe of documents alone that is made already, for tests that leave it as it is."""
    recipe = documents_alone(table_of(tiny_sharer, tiny_receiver, shared, shared))
    made(recipe)
    return recipe


def table_of(sharer: Path, receiver: Path, shared: Path, folder: Path) -> dict[str, Any]:
    stages = copy.deepcopy(STAGES)
    stages[-2]["profile"] = {"data": str(shared / "train" / "choices.jsonl")}
    return {
        "sharer": str(sharer),
        "receiver": str(receiver),
        "work": str(folder / "work"),
        "output": str(folder / "output"),
        "cache": str(shared / "cache"),
        "lead": "Read.\n",
        "regression_positions": 400,
        "sharer_prompt": SHARER_PROMPT,
        "receiver_prompt": RECEIVER_PROMPT,
        "translate": {"code_dim": 24, "prefix_positions": 6},
        "fuse": {"rank": 8, "inner": 12},
        "selection": {"rule": "learnt", "heads": 4, "positions": 8, "first_layer": 0.0},
        "answer": {"steps": 4, "batch": 2, "evaluate_every": 4, "checkpoint_every": 2, "validation": 4},
        "fit": {"questions": 50},
        "calibrate": {"positions": 200, "rates": [2, 1]},
        "profile": PROFILE,
        "sources": {
            "records": {"source": "records:train", "documents": 44},
            "held": {"source": "records:heldout", "documents": 6, "validation": True},
            "near": {"source": "records:train", "documents": 0, "near": True},
            "sums": {"source": str(shared / "sums.jsonl"), "documents": 12, "task": "shared"},
        },
        "stage": stages,
    }


def made(table: dict[str, Any], minutes: float = float("inf")) -> dict[str, Any]:
    with Progress(disable=True) as progress:
        return make(Recipe.of(table), progress, minutes)


def documents_alone(table: dict[str, Any]) -> dict[str, Any]:
    """The recipe with two training stages over few documents and nothing else."""
    few = {"selection": False, "fuse": False, "sources": {"records": {"documents": 12}, "sums": False}}
    stages = [{"name": "start", "kind": "train"}, {"name": "more", "kind": "train", "seed": 2}]
    return merged(table, few) | {"stage": stages}


def events(table: dict[str, Any], stage: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "time"} for row in read_log(Path(table["work"]) / stage)]


class _Killed(BaseException):
    """Stands for the end of the process: nothing after it runs."""


def _kill_at(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Raise before the `most`-th of the training steps and of the beginnings and ends of stages, counted together."""
    seen = [0]

    def watched(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def method(*arguments: Any) -> Any:
            seen[0] += 1
            if seen[0] == most:
                raise _Killed
            return real(*arguments)

        monkeypatch.setattr(owner, name, method)

    for owner, name in ((TrainRun, "_one_step"), (_Record, "begin"), (_Record, "end")):
        watched(owner, name)
    return seen


@pytest.mark.timeout(300)
def test_a_recipe_that_is_killed_again_and_again_makes_the_bundle_of_one_that_is_not(
    table: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = made(table)
    bundle = Bundle.load(table["output"])
    assert done["finished"] and done["bundle"] == bundle.hash
    assert bundle.kinds == set(SliceKind)
    assert bundle.config.selection.rule == "learnt"
    assert [codec.name for codec in bundle.codecs()] == ["transform-2", "transform-1"]
    apart = {"draft", "mismatched_draft", "unanswerable_draft"}
    for stage, wanted in (("through", {"true"}), ("drafts", apart | {"true"})):
        rows = [
            row
            for row in events(table, stage)
            if (row["stage"], row.get("task")) == ("validation", "document")
        ]
        assert [row.keys() & (apart | {"true"}) for row in rows] == [wanted] * 2
    assert bundle.answerable is not None
    plans = PlanTable.load(table["output"])
    assert {row.kind for row in plans.rows} >= {SliceKind.EXCERPT, SliceKind.SHARED}

    other = table | {"work": str(tmp_path / "killed"), "output": str(tmp_path / "killed-output")}
    kills, again = 0, None
    while again is None:
        with monkeypatch.context() as patch:
            _kill_at(patch, 7)
            try:
                again = made(other)
            except _Killed:
                kills += 1
    assert kills >= 5
    assert again["bundle"] == done["bundle"]
    for stage in Recipe.of(table).stages:
        if stage.kind == "train":
            assert events(other, stage.name) == events(table, stage.name)
        if stage.kind != "fit":
            hashes = [Bundle.load(Path(each["work"]) / stage.name / "bundle").hash for each in (table, other)]
            assert hashes[0] == hashes[1]
    assert PlanTable.load(other["output"]).rows == plans.rows

    with monkeypatch.context() as patch:
        seen = _kill_at(patch, 1)
        assert made(other) == again  # nothing is left to do
    assert seen == [0]
    assert all(one.done for one in standings(Recipe.of(other)))


def test_time_that_is_up_stops_between_stages_and_within_one(table: dict[str, Any], tmp_path: Path) -> None:
    recipe = documents_alone(table) | {"cache": str(tmp_path / "cache")}
    assert made(recipe, 0) == {"finished": False, "stage": "start"}
    assert [(one.done, one.begun) for one in standings(Recipe.of(recipe))] == [(False, False)] * 2
    with pytest.MonkeyPatch.context() as patch:
        _kill_at(patch, 5)  # begin, and three steps
        with pytest.raises(_Killed):
            made(recipe)
    start, _ = standings(Recipe.of(recipe))
    assert (start.done, start.begun, start.step, start.steps) == (False, True, 2, 4)
    stopped = made(recipe, 0)  # writes the bundle as it is
    assert (stopped["finished"], stopped["stage"], stopped["step"]) == (False, "start", 2)
    assert Bundle.load(stopped["output"]).hash == stopped["bundle"]
    assert not Path(recipe["output"]).exists()
    assert made(recipe)["finished"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": {"steps": 5}}, "stage start: answer.steps was 4 and is 5"),
        ({"sources": {"records": {"seed": 9}}}, "stage start: sources.records.seed was 1 and is 9"),
        ({"sources": {"held": {"documents": 0}}}, "stage start: sources.held is gone"),
        (
            {"stage": [{"name": "start", "kind": "train"}, {"name": "more", "kind": "train"}]},
            "seed was 2 and is 1",
        ),
    ],
)
def test_a_changed_recipe_is_refused_by_what_changed(
    done_before: dict[str, Any], change: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=f"{message}.*name another `work`, or remove that directory"):
        made(merged(done_before, change))
    with pytest.raises(ValueError, match=message):
        standings(Recipe.of(merged(done_before, change)))


def test_what_a_stage_does_not_read_may_change(done_before: dict[str, Any]) -> None:
    recipe = done_before
    done = made(recipe)  # nothing is left to do
    other = merged(recipe, {"profile": {"questions": 9}, "device": "cpu", "calibrate": {"positions": 9}})
    assert made(other) == done
    elsewhere = merged(recipe, {"output": recipe["output"] + "-elsewhere"})
    assert Bundle.load(made(elsewhere)["output"]).hash == done["bundle"]


def test_a_stage_that_has_made_nothing_yet_may_change(
    table: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = documents_alone(table) | {"cache": str(tmp_path / "cache")}

    def killed(*_: Any) -> Any:
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr("fuser.lab.train.making.fill_cache", killed)
        with pytest.raises(_Killed):
            made(recipe)
    assert [one.begun for one in standings(Recipe.of(recipe))] == [True, False]
    assert made(merged(recipe, {"answer": {"steps": 2}}))["finished"]
    assert len([row for row in events(recipe, "start") if row["stage"] == "step"]) == 2


def test_a_stage_added_at_the_end_goes_on_from_the_bundle_that_is_there(table: dict[str, Any]) -> None:
    recipe = documents_alone(table)
    before = made(recipe)["bundle"]
    last = {"name": "codecs", "kind": "calibrate"}
    done = made(recipe | {"stage": [*recipe["stage"], last]})
    after = Bundle.load(recipe["output"])
    assert after.hash == done["bundle"] != before
    assert after.with_codec_bases(None).hash == before


def test_texts_or_a_first_bundle_that_change_within_a_recipe_are_refused(
    table: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = documents_alone(table)
    made(recipe)
    first = tmp_path / "first"
    Bundle.load(recipe["output"]).save(first)
    on = recipe | {"init": str(first), "work": str(tmp_path / "on"), "output": str(tmp_path / "on-output")}
    with monkeypatch.context() as patch:
        _kill_at(patch, 3)
        with pytest.raises(_Killed):
            made(on)
    with monkeypatch.context() as patch:

        def fewer(config: Any) -> Sources:
            found = read_sources(config)
            return Sources(found.train[1:], found.validation)

        patch.setattr("fuser.lab.train.making.read_sources", fewer)
        with pytest.raises(ValueError, match="stage start: hash of its training texts was"):
            made(on)
    Bundle.load(Path(recipe["work"]) / "start" / "bundle").save(first)
    with pytest.raises(ValueError, match="stage start: hash of the bundle before it was"):
        made(on)


def test_a_damaged_record_is_named_with_what_to_do(table: dict[str, Any]) -> None:
    recipe = documents_alone(table)
    folder = Path(recipe["work"]) / "start"
    folder.mkdir(parents=True)
    (folder / RECORD).write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=f"{RECORD} is damaged .* remove .*start and start again"):
        made(recipe)


def test_two_processes_do_not_work_on_one_recipe(table: dict[str, Any]) -> None:
    busy = pytest.raises(RuntimeError, match="another process is training in")
    with directory_lock(Path(table["work"]), "training in"), busy:
        made(table)
