"""Rows have as much of a plan as means something to them, and are compared by the same plan."""

from dataclasses import replace
from pathlib import Path

import pytest

from fuser.bundle.bundle import Bundle
from fuser.lab.evaluate.documents import ROWS
from fuser.lab.evaluate.plans import excerpt_plans, shared_plans
from fuser.lab.evaluate.rows import Answers, Registry, RowAnswer
from kvwire.errors import InvalidRequest, Unsupported
from kvwire.plan import WHOLE, Plan

INT8 = Plan(codec="int8")


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    """Of 12 positions, with codes of 24 numbers."""
    return Bundle.load(tiny_bundle)


def test_the_bundles_own_way_has_no_plan_in_its_name(bundle: Bundle) -> None:
    whole = excerpt_plans(bundle, [12], [Plan(codec="raw", code_dim=24)])
    assert excerpt_plans(bundle, [], []) == (WHOLE,) == whole
    every = [row.name for row in ROWS]
    assert [line.name for line in ROWS.lines(every)] == every


def test_every_number_of_positions_comes_with_every_plan(bundle: Bundle) -> None:
    found = excerpt_plans(bundle, [4, 12, 4], [INT8, replace(INT8, code_dim=8, padded=True)])
    assert [str(plan) for plan in found] == ["int8:m4", "int8:m4:8:padded", "int8", "int8:8:padded"]
    assert excerpt_plans(bundle, [], [replace(INT8, positions=4)]) == found[:1]


def test_what_the_bundle_has_not_is_refused(bundle: Bundle) -> None:
    with pytest.raises(Unsupported, match="codec 'zip'; known are raw"):
        excerpt_plans(bundle, [], [Plan(codec="zip")])
    with pytest.raises(InvalidRequest, match="25"):
        excerpt_plans(bundle, [], [replace(INT8, code_dim=25)])
    with pytest.raises(InvalidRequest, match="no code_dim"):
        shared_plans(bundle, [replace(INT8, code_dim=8)])


def test_rows_have_as_much_of_a_plan_as_means_something_to_them(bundle: Bundle) -> None:
    plans = excerpt_plans(bundle, [4, 8], [Plan(codec="raw", code_dim=8), INT8])
    lines = ROWS.lines(["fused", "own", "receiver"], plans)
    assert [line.name for line in lines] == [
        "receiver",
        "own raw:m4",
        "own raw:m8",
        "fused raw:m4:8",
        "fused int8:m4",
        "fused raw:m8:8",
        "fused int8:m8",
    ]
    assert (lines[4].key, lines[4].label) == (("fused", "int8:m4"), "fused, int8:m4")


@pytest.mark.parametrize(
    ("row", "found"),
    [("mismatched", "mismatched int8:m4"), ("own", "own raw:m4"), ("receiver", "receiver")],
)
def test_rows_are_compared_by_the_same_plan(row: str, found: str) -> None:
    assert ROWS.line(row, replace(INT8, positions=4)).name == found
    assert ROWS.line("own", replace(INT8, code_dim=8, padded=True)) == ROWS.line("own")


def test_the_rivals_of_an_excerpt_in_two_runs_have_the_same_two(bundle: Bundle) -> None:
    (plan,) = excerpt_plans(bundle, [4], [replace(INT8, runs=2)])
    assert [ROWS.line(row, plan).name for row in ("excerpt-text", "own")] == [
        "excerpt-text raw:m4:runs2",
        "own raw:m4:runs2",
    ]


def test_a_row_is_added_by_a_decorated_function_and_an_unknown_one_names_the_known() -> None:
    rows: Registry[list[str]] = Registry("of a test")

    @rows.row("echo", "says what was asked", by="plan")
    def echo(batch: list[str], plan: Plan) -> Answers:
        return [RowAnswer(f"{text} by {plan}") for text in batch]

    line = rows.line("echo", INT8)
    assert [answer.text for answer in line.row.answer(["a", "b"], line.plan)] == ["a by int8", "b by int8"]
    with pytest.raises(ValueError, match=r"unknown row 'magic'; rows of a test are echo"):
        rows["magic"]
