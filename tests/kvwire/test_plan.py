"""A plan says what of a slice is sent."""

from typing import Any

import pytest

from kvwire.errors import InvalidRequest
from kvwire.plan import WHOLE, Plan
from kvwire.segment import SliceKind


@pytest.mark.parametrize("field", ["positions", "code_dim", "last"])
def test_a_plan_has_no_negative_numbers(field: str) -> None:
    with pytest.raises(InvalidRequest, match="negative"):
        Plan(codec="raw", **{field: -1})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["positions", "code_dim", "last"])
def test_a_number_that_the_wire_cannot_hold_is_refused(field: str) -> None:
    Plan(codec="raw", **{field: 2**32 - 1})  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="numbers over"):
        Plan(codec="raw", **{field: 2**32})  # type: ignore[arg-type]


@pytest.mark.parametrize("layers", [(2, 1), (1, 1), (-1, 2), (0, 2**16)])
def test_a_plan_names_layers_once_and_in_order(layers: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest):
        Plan(codec="raw", layers=layers)


@pytest.mark.parametrize("kind", list(SliceKind))
def test_codec_and_padding_are_of_every_kind(kind: SliceKind) -> None:
    Plan(codec="int8", padded=True).check(kind)
    WHOLE.check(kind)


@pytest.mark.parametrize("field", ["positions", "code_dim", "runs"])
def test_the_dials_of_codes_are_refused_for_shared_slices(field: str) -> None:
    plan = Plan(codec="raw", **{field: 1})  # type: ignore[arg-type]
    plan.check(SliceKind.EXCERPT)
    plan.check(SliceKind.DRAFT)
    with pytest.raises(InvalidRequest, match=f"kind shared has no {field}"):
        plan.check(SliceKind.SHARED)


@pytest.mark.parametrize(("field", "value"), [("layers", (0,)), ("last", 1), ("bottleneck", True)])
def test_the_dials_of_a_shared_slice_are_refused_for_others(field: str, value: object) -> None:
    plan = Plan(codec="raw", **{field: value})  # type: ignore[arg-type]
    plan.check(SliceKind.SHARED)
    with pytest.raises(InvalidRequest, match=f"excerpt has no {field}"):
        plan.check(SliceKind.EXCERPT)


def test_a_shared_slice_has_no_code_to_cut() -> None:
    with pytest.raises(InvalidRequest, match="no code_dim"):
        Plan(codec="raw", code_dim=4).check(SliceKind.SHARED)


@pytest.mark.parametrize(
    "text",
    [
        "raw",
        "int8:m8:256",
        "transform-2:m16:padded",
        "int4:layers0+3+17:last3:bottleneck",
        "hadamard-3:bottleneck:padded",
    ],
)
def test_a_plan_is_written_in_one_word_and_read_again(text: str) -> None:
    assert str(Plan.parse(text)) == text


@pytest.mark.parametrize("with_it", [{"runs": 2}, {"padded": True}])
def test_only_the_length_of_one_run_that_may_show_is_fitted(with_it: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="a plan"):
        Plan(codec="raw", fit=True, **with_it)


def test_different_plans_are_written_differently() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"codec": "int4"},
        {"positions": 4},
        {"code_dim": 4},
        {"last": 4},
        {"layers": (4,)},
        {"layers": (1, 4)},
        {"bottleneck": True},
        {"padded": True},
    ]
    assert len({str(Plan(**({"codec": "int8"} | change))) for change in changes}) == len(changes)


@pytest.mark.parametrize(
    "text", ["int8:x", "int8:m0", "int8:8:9", "int8:", "int8:layers", "int8:last", "int8:both"]
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"expected CODEC\[:mPOSITIONS\]"):
        Plan.parse(text)
