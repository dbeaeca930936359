"""Rows have as much of a plan as means something to them, and are compared by the same plan."""

from dataclasses import replace
from pathlib import Path

import pytest

from fuser.bundle.bundle import Bundle
from fuser.lab.evaluate.plans import excerpt_plans, selected_by, shared_plans
from fuser.lab.evaluate.rows import DOCUMENT_ROWS, Row, rows_of
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
    assert [row.name for row in rows_of(DOCUMENT_ROWS)] == list(DOCUMENT_ROWS)


def test_every_number_of_positions_comes_with_every_plan(bundle: Bundle) -> None:
    found = excerpt_plans(bundle, [4, 12, 4], [INT8, replace(INT8, code_dim=8, padded=True)])
    assert [str(plan) for plan in found] == ["int8:m4", "int8:m4:8:padded", "int8", "int8:8:padded"]
    own = bundle.config.selection
    assert selected_by(found[0], own) == replace(own, positions=4)
    assert selected_by(found[2], own) == own
    assert excerpt_plans(bundle, [], [replace(INT8, positions=4)]) == found[:1]


def test_what_the_bundle_has_not_is_refused(bundle: Bundle) -> None:
    with pytest.raises(Unsupported, match="codec 'zip'; known are raw"):
        excerpt_plans(bundle, [], [Plan(codec="zip")])
    with pytest.raises(InvalidRequest, match="25"):
        excerpt_plans(bundle, [], [replace(INT8, code_dim=25)])
    with pytest.raises(InvalidRequest, match="no code_dim"):
        shared_plans(bundle, [replace(INT8, code_dim=8)])


def test_rows_have_as_much_of_a_plan_as_means_something_to_them(bundle: Bundle) -> None:
    rows = rows_of(DOCUMENT_ROWS, excerpt_plans(bundle, [4, 8], [Plan(codec="raw", code_dim=8), INT8]))
    names = {row.kind: [other.name for other in rows if other.kind == row.kind] for row in rows}
    assert names["receiver"] == ["receiver"]
    assert names["own"] == ["own raw:m4", "own raw:m8"]
    assert names["fused"] == ["fused raw:m4:8", "fused int8:m4", "fused raw:m8:8", "fused int8:m8"]
    (row,) = (row for row in rows if row.name == "fused int8:m4")
    assert row.title == "fused, int8:m4"


@pytest.mark.parametrize(
    ("kind", "found"),
    [("mismatched", "mismatched int8:m4"), ("own", "own raw:m4"), ("receiver", "receiver")],
)
def test_rows_are_compared_by_the_same_plan(kind: str, found: str) -> None:
    assert Row("fused", replace(INT8, positions=4)).beside(kind).name == found
    assert Row("fused", replace(INT8, code_dim=8, padded=True)).beside("own") == Row("own")
