"""Dials: what is asked for, in a form that names rows, and rows that are compared at the same dial."""

from dataclasses import replace
from pathlib import Path

import pytest

from fuser.bundle import Bundle
from fuser.evaluate.dial import Dial, dials
from fuser.evaluate.rows import counterpart, dialled, label
from kvwire.errors import InvalidRequest, Unsupported
from kvwire.plan import Plan

INT8 = Plan(codec="int8")


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    """Of 12 positions without a pool, with codes of 24 numbers."""
    return Bundle.load(tiny_bundle)


def test_the_bundles_own_way_has_no_name(bundle: Bundle) -> None:
    assert dials(bundle, [], 0, []) == (Dial(),) == dials(bundle, [12], 1, [Plan(codec="raw", code_dim=24)])
    assert str(Dial()) == ""


def test_every_number_of_positions_comes_with_every_plan(bundle: Bundle) -> None:
    found = dials(bundle, [4, 12, 4], 3, [INT8, replace(INT8, code_dim=8, padded=True)])
    assert [str(dial) for dial in found] == [
        "m4 p3 int8",
        "m4 p3 int8:8:padded",
        "p3 int8",
        "p3 int8:8:padded",
    ]
    chosen = found[0].select(bundle.config.selection)
    assert (chosen.positions, chosen.pool) == (4, 3)
    assert chosen == replace(bundle.config.selection, positions=4, pool=3)


def test_what_the_bundle_has_not_is_refused(bundle: Bundle) -> None:
    with pytest.raises(Unsupported, match="codec 'zip'; known are raw"):
        dials(bundle, [], 0, [Plan(codec="zip")])
    with pytest.raises(InvalidRequest, match="25"):
        dials(bundle, [], 0, [replace(INT8, code_dim=25)])
    with pytest.raises(ValueError, match="odd pool"):
        dials(bundle, [], 2, [])


def test_rows_have_as_much_of_a_dial_as_means_something_to_them(bundle: Bundle) -> None:
    rows = dialled(dials(bundle, [4, 8], 3, [Plan(codec="raw", code_dim=8), INT8]))
    names = {row: [name for name, (base, _) in rows.items() if base == row] for row, _ in rows.values()}
    assert names["receiver"] == ["receiver"]
    assert names["own"] == ["own m4 p3", "own m8 p3"]
    assert names["summary"] == ["summary m4", "summary m4 int8", "summary m8", "summary m8 int8"]
    assert names["fused"] == [
        "fused m4 p3 raw:8",
        "fused m4 p3 int8",
        "fused m8 p3 raw:8",
        "fused m8 p3 int8",
    ]
    assert label(*rows["fused m4 p3 int8"]) == "fused, 4 positions, p3, int8"


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("mismatched", "mismatched m4 p3 int8"),
        ("own", "own m4 p3"),
        ("summary", "summary m4 int8"),
        ("receiver", "receiver"),
        ("translated-all", "translated-all"),
    ],
)
def test_rows_are_compared_at_the_same_dial(row: str, found: str) -> None:
    assert counterpart("fused m4 p3 int8", row) == found
    assert counterpart("fused raw:8", "summary") == "summary"
    assert counterpart("fused int8:8:padded", "summary") == "summary int8:padded"
