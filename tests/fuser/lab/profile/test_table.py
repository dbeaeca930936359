"""The table of plans: read strictly, bound to one bundle."""

import dataclasses
import json
from pathlib import Path

import pytest

from fuser.bundle.bundle import Bundle
from fuser.bundle.plans import PLANS_FILE, BadTable, Interval, PlanTable
from kvwire.plan import Plan
from kvwire.segment import SliceKind
from tests.fuser.lab.profile.rows import row

HASH = "ab" * 32
TABLE = PlanTable(
    HASH,
    (
        row(Plan(codec="int8", positions=4, code_dim=64), 300, 0.2),
        row(Plan(codec="raw"), 32_768, 0.3),
        row(Plan(codec="int4", layers=(1, 3), last=4), 900, 0.4, kind=SliceKind.SHARED),
    ),
    {"source": "records:train", "seed": 7},
)


def test_a_table_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    path = TABLE.save(tmp_path)
    assert path == tmp_path / PLANS_FILE
    assert PlanTable.load(tmp_path, HASH) == TABLE
    assert [r.plan.codec for r in TABLE.of(SliceKind.EXCERPT)] == ["int8", "raw"]


def test_a_table_of_another_bundle_is_refused_with_both_hashes(tmp_path: Path) -> None:
    TABLE.save(tmp_path)
    with pytest.raises(BadTable, match=f"{HASH}, this is {'cd' * 32}"):
        PlanTable.load(tmp_path, "cd" * 32)


def test_without_a_hash_the_bundle_beside_the_table_is_read(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    bundle.save(tmp_path)
    own = dataclasses.replace(TABLE, bundle=bundle.hash)
    own.save(tmp_path)
    assert PlanTable.load(tmp_path) == own and Bundle.load(tmp_path).hash == bundle.hash
    TABLE.save(tmp_path)
    with pytest.raises(BadTable, match="profile it again"):
        PlanTable.load(tmp_path)


def test_a_missing_table_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(BadTable, match="kvwire profile"):
        PlanTable.load(tmp_path, HASH)


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (("rows", 0, "surprise"), 1, r"unknown key rows\[0\].surprise"),
        (("rows", 0, "mean_bytes"), -1.0, "0 <= mean <= max <= cap"),
        (("rows", 0, "max_bytes"), 10**9, "0 <= mean <= max <= cap"),
        (("rows", 0, "questions"), 0, "at least 1"),
        (("rows", 0, "transfer", "low"), 0.9, "outside its interval"),
        (("rows", 0, "transfer", "low"), float("nan"), "NaN is not a number"),
        (("rows", 0, "plan", "positions"), -3, "no negative numbers"),
        (("rows", 0, "plan", "codec"), 8, "expected str"),
        (("rows", 0, "kind"), "whole", "expected one of"),
        (("format",), 2, "format"),
        (("rows",), {}, "a list"),
    ],
)
def test_a_damaged_table_is_refused_by_name(
    tmp_path: Path, path: tuple[str | int, ...], value: object, match: str
) -> None:
    raw = json.loads(TABLE.save(tmp_path).read_text("utf-8"))
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / PLANS_FILE).write_text(json.dumps(raw), "utf-8")
    with pytest.raises(BadTable, match=match):
        PlanTable.load(tmp_path, HASH)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", "[" * 100_000, " " * (1 << 20) + "{}"])
def test_what_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / PLANS_FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(BadTable, match=PLANS_FILE.replace(".", r"\.")):
        PlanTable.load(tmp_path, HASH)


def test_a_plan_is_useful_where_its_interval_is_clear_of_nought() -> None:
    assert row(Plan(codec="raw"), 10, 0.2, low=0.01).useful
    assert not row(Plan(codec="raw"), 10, 0.2, low=0.0).useful
    with pytest.raises(ValueError, match="outside its interval"):
        dataclasses.replace(TABLE.rows[0], transfer=Interval(0.5, 0.6, 0.7))
