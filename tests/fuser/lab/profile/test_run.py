"""A profile of the tiny pair, whose answers mean nothing: bytes, resumption, controls, and what the table holds."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from fuser.bundle.bundle import Bundle
from fuser.bundle.plans import PlanTable
from fuser.lab.evaluate.settings import Setup
from fuser.lab.profile.grid import Dials, ProfileConfig
from fuser.lab.profile.run import ProfileRun
from kvwire.plan import Plan
from kvwire.segment import SliceKind

QUIET = Progress(disable=True)
DIALS = Dials(codecs=("int8",), positions=(12, 3), fit=(False,), quoted=(0, 2), code_dims=(24, 6), last=(4,))
Make = Callable[..., ProfileRun]


@pytest.fixture
def make(tiny_bundle: Path, tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path) -> Make:
    """Makes a profile of eight questions over records; keywords change it."""
    return maker(tiny_bundle, tiny_sharer, tiny_receiver, tmp_path / "work")


@pytest.fixture(scope="module")
def answered(
    tiny_bundle: Path, tiny_sharer: Path, tiny_receiver: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Where such a profile was measured: made there again it is complete."""
    work = tmp_path_factory.mktemp("answered")
    run = maker(tiny_bundle, tiny_sharer, tiny_receiver, work)()
    assert not run.complete and run.worth == []
    assert run.measure(QUIET)
    return work


@pytest.fixture(scope="module")
def sent(
    choices: str,
    tiny_bundle: Path,
    tiny_sharer: Path,
    tiny_receiver: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> ProfileRun:
    """A complete profile of shared slices, every plan of it."""
    made = maker(tiny_bundle, tiny_sharer, tiny_receiver, tmp_path_factory.mktemp("sent"))
    run = made(data=choices, questions=5, screened=2, plans=99)
    assert run.measure(QUIET)
    return run


def maker(bundle: Path, sharer: Path, receiver: Path, work: Path) -> Make:
    def made(**changed: Any) -> ProfileRun:
        setup: dict[str, Any] = {"sharer": str(sharer), "receiver": str(receiver)}
        setup |= {"work": str(changed.pop("work", work))}
        if dtype := changed.pop("dtype", None):
            setup["dtype"] = dtype
        given: dict[str, Any] = {"questions": 8, "screened": 5, "plans": 3, "dials": DIALS}
        return ProfileRun(bundle, ProfileConfig(**(given | changed)), Setup(**setup))

    return made


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Questions with choices, as a file."""
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    words = ("door", "river", "lamp", "bridge", "ledger", "cedar")
    rows = [
        {"id": f"c{i}", "question": f"Which word is the {i + 1}. one?", "choices": words[:4], "answer": i % 4}
        for i in range(5)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def test_every_plan_is_screened_and_the_nearest_answer_beside_their_controls(
    make: Make, answered: Path
) -> None:
    run = make(work=answered)
    assert run.complete
    report = run.report(["kvwire", "profile"])
    assert report["grid"] == len(report["screen"]) == 5
    rows = {row.plan: row for row in run.worth}
    assert Plan(codec="raw") in rows and 2 <= len(rows) <= 4
    for plan, row in rows.items():
        wanted = (plan.positions or 12) * (plan.code_dim or 24)
        size = 4 * wanted if plan.codec == "raw" else wanted + 2 * (plan.positions or 12)
        assert row.max_bytes == row.cap_bytes == size and row.mean_bytes == size, str(plan)
        assert row.questions == 8 and row.kind is SliceKind.EXCERPT
    raw = rows[Plan(codec="raw")]
    assert (raw.against_raw.point, raw.against_raw.low, raw.against_raw.high) == (0.0, 0.0, 0.0)
    assert {"Receiver alone (floor)", "Receiver given the excerpt's text"} <= {
        rival["name"] for rival in report["rivals"]
    }
    json.dumps(report, allow_nan=False)


def test_drafts_are_profiled_beside_the_text_of_the_same_drafts_and_kept_with_other_kinds(
    make: Make, answered: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    excerpts, drafts = make(work=answered), make(drafts=True)
    assert excerpts.measure(QUIET) and drafts.measure(QUIET)
    rows = {row.plan: row for row in drafts.worth}
    assert rows[Plan(codec="raw")].kind is SliceKind.DRAFT and rows[Plan(codec="raw")].mean_bytes > 0
    assert all(row.mean_bytes <= row.max_bytes <= row.cap_bytes for row in rows.values())
    named = {rival["name"] for rival in drafts.report()["rivals"]}
    assert "Receiver given the draft's text" in named and "Receiver given the excerpt's text" not in named
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    excerpts.table().save(bundle)
    both = drafts.table(bundle)
    assert (
        both.of(SliceKind.EXCERPT) and both.of(SliceKind.DRAFT) and set(both.measured) == {"excerpt", "draft"}
    )


def test_the_loss_of_the_screen_is_that_of_the_slice_that_arrives(make: Make) -> None:
    run = make(dials=Dials(codecs=("lossless", "int8"), positions=(12,), fit=(False,), code_dims=(24,)))
    run.measure(QUIET)
    loss = {one["plan"]["codec"]: one["loss"] for one in run.report()["screen"]}
    assert loss["raw"] == loss["lossless"]
    assert loss["raw"] != loss["int8"] and abs(loss["raw"] - loss["int8"]) < 0.2


def test_a_stopped_profile_goes_on_where_it_was(make: Make, answered: Path, tmp_path: Path) -> None:
    whole = make(work=answered)
    assert whole.complete
    assert not make().measure(QUIET, max_minutes=0.0)
    for tries in range(1, 100):
        run = make()
        if run.measure(QUIET, max_minutes=0.004 * tries):
            break
        assert run.table().rows == () or run.worth
    assert run.complete
    assert run.table().rows == whole.table().rows
    answered = (next(tmp_path.glob("work/*/predictions.jsonl"))).read_text("utf-8").splitlines()
    assert len(answered) == len({(p["row"], p["plan"], p["item"]) for p in map(json.loads, answered)})


def test_more_dials_add_to_what_is_measured(make: Make, answered: Path, tmp_path: Path) -> None:
    shutil.copytree(answered, tmp_path / "work")
    assert make().complete
    more = make(dials=Dials(codecs=("int8",), positions=(12, 3, 1), fit=(False,), code_dims=(24, 6)))
    assert len(more.report()["screen"]) == 5 and not more.complete
    assert more.measure(QUIET) and len(more.report()["screen"]) == 7
    fewer = make(dials=Dials(codecs=("int8",), positions=(3,), code_dims=(6,)))
    assert len(fewer.report()["screen"]) == fewer.report()["grid"] == 2


def test_the_table_holds_what_nothing_beats_and_rows_of_other_kinds_stay(
    make: Make, answered: Path, sent: ProfileRun, tmp_path: Path, tiny_bundle: Path
) -> None:
    run, bundle = make(work=answered), Bundle.load(tiny_bundle)
    bundle.save(tmp_path / "bundle")
    run.table(tmp_path / "bundle").save(tmp_path / "bundle")
    excerpts = PlanTable.load(tmp_path / "bundle").rows
    assert excerpts and [row.mean_bytes for row in excerpts] == sorted(row.mean_bytes for row in excerpts)
    sent.table(tmp_path / "bundle").save(tmp_path / "bundle")
    table = PlanTable.load(tmp_path / "bundle", bundle.hash)
    assert table.of(SliceKind.EXCERPT) == excerpts and table.of(SliceKind.SHARED)
    assert set(table.measured) == {"excerpt", "shared"}


def test_shared_slices_are_sent_by_every_dial(sent: ProfileRun) -> None:
    rows = {row.plan: row for row in sent.worth}
    assert set(rows) == set(sent.plans) and {row.kind for row in sent.worth} == {SliceKind.SHARED}
    raw, kept = rows[Plan(codec="raw")], rows[Plan(codec="int8", last=4)]
    both, half = rows[Plan(codec="int8")], rows[Plan(codec="int8", bottleneck=True)]
    assert kept.mean_bytes < both.mean_bytes < raw.mean_bytes and half.mean_bytes < both.mean_bytes
    assert all(row.max_bytes <= row.cap_bytes for row in rows.values())


def test_slices_read_in_one_dtype_are_not_taken_for_another(make: Make, choices: str) -> None:
    runs = [make(data=choices, questions=5, dtype=dtype) for dtype in ("float32", "bfloat16")]
    assert runs[0]._given.work != runs[1]._given.work


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"data": "records:heldout"}, "marked 'heldout'"),
        ({"data": "data/squad/dev.jsonl"}, "marked 'dev'"),
        ({"dials": Dials(codecs=("int9",))}, "unknown codec 'int9'"),
        ({"dials": Dials(positions=(99,))}, "positions: 99"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_read(
    make: Make, changed: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        make(**changed)
