"""Which plans are tried."""

from pathlib import Path

import pytest

from fuser.bundle.bundle import Bundle
from fuser.lab.profile.grid import Dials, grid
from kvwire.codec import CodecRegistry
from kvwire.plan import Plan
from kvwire.segment import SliceKind

NAMES = ("raw", "lossless", "int8")


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def test_every_setting_of_an_excerpts_dials_is_tried_once_and_raw_alone_first(bundle: Bundle) -> None:
    plans = grid(bundle, SliceKind.EXCERPT, NAMES, Dials(fit=(False,)))
    assert plans[0] == Plan(codec="raw")
    assert [plan for plan in plans if plan.codec == "raw"] == plans[:1]
    assert len(plans) == len(set(plans)) == 1 + 2 * 4 * 4
    assert {plan.positions for plan in plans[1:]} == {12, 6, 3, 1}
    assert {plan.code_dim for plan in plans[1:]} == {0, 12, 6, 3}


def test_the_length_of_a_run_is_fitted_where_it_can_be_halved(bundle: Bundle) -> None:
    plans = grid(bundle, SliceKind.EXCERPT, ("raw", "int8"), Dials(code_dims=(24,)))
    assert [str(plan) for plan in plans] == [
        "raw",
        "int8:m12",
        "int8:m12:fit",
        "int8:m6",
        "int8:m3",
        "int8:m1",
    ]


def test_drafts_are_tried_alone_and_behind_what_is_quoted(bundle: Bundle) -> None:
    plans = grid(bundle, SliceKind.DRAFT, ("raw", "int8"), Dials(quoted=(0, 8), code_dims=(24, 6)))
    assert [str(plan) for plan in plans] == ["raw", "int8", "int8:6", "int8:quoted8", "int8:quoted8:6"]
    for plan in plans:
        plan.check(SliceKind.DRAFT)


def test_values_can_be_given_and_are_checked(bundle: Bundle) -> None:
    dials = Dials(codecs=("int8",), positions=(5,), fit=(False,), code_dims=(24, 7), padded=True)
    assert grid(bundle, SliceKind.EXCERPT, NAMES, dials)[1:] == [
        Plan(codec="int8", positions=5, padded=True),
        Plan(codec="int8", positions=5, code_dim=7, padded=True),
    ]
    for wrong, match in (
        (Dials(codecs=("int3",)), "unknown codec 'int3'"),
        (Dials(positions=(13,)), "positions: 13 is not 1 to 12"),
        (Dials(code_dims=(0,)), "code_dims: 0 is not 1 to 24"),
    ):
        with pytest.raises(ValueError, match=match):
            grid(bundle, SliceKind.EXCERPT, NAMES, wrong)


def test_of_a_shared_slice_one_dial_is_turned_at_a_time(bundle: Bundle) -> None:
    plans = grid(bundle, SliceKind.SHARED, NAMES, Dials(last=(4,)))
    assert plans[0] == Plan(codec="raw") and len(plans) == len(set(plans))
    for plan in plans[1:]:
        plan.check(SliceKind.SHARED)
        assert not (plan.layers and plan.last)
    needed = {layer for _, layer in bundle.require_fuse().needed()}
    assert all(set(plan.layers) < needed for plan in plans)
    assert {plan.bottleneck for plan in plans[1:]} == {True, False}
    assert CodecRegistry().names()[:3] == NAMES
