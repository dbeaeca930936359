"""A plan says what of a slice is sent."""

import pytest

from kvwire.errors import InvalidRequest
from kvwire.plan import Plan


@pytest.mark.parametrize("field", ["positions", "code_dim", "last"])
def test_a_plan_has_no_negative_numbers(field: str) -> None:
    with pytest.raises(InvalidRequest, match="negative"):
        Plan(codec="raw", **{field: -1})  # type: ignore[arg-type]


@pytest.mark.parametrize("layers", [(2, 1), (1, 1), (-1, 2)])
def test_a_plan_names_layers_once_and_in_order(layers: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest):
        Plan(codec="raw", layers=layers)
