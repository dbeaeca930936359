"""The checker of answers finds what is wrong, where something wrong is planted, and nothing else."""

import dataclasses
import itertools
from typing import Any

import pytest

from ops.chaos.history import GRACE_S, REASONS, Checker, Expected, HistoryLine
from ops.chaos.outcome import VIOLATIONS, Ending

TRUE = {
    ("p1", "first"): Expected(("h", "a"), "blue"),
    ("p1", "second"): Expected(("h", "b"), "seven"),
    ("p2", "first"): Expected(("h", "c"), "green"),
}
_NUMBERS = itertools.count()


def asked(**changes: Any) -> HistoryLine:
    """A fused answer as it should be, but for the changes."""
    true = HistoryLine(
        index=3,
        fault="none",
        request_id=f"{next(_NUMBERS):032x}",
        prompt="p1",
        versions=("first",),
        segments=("h", "a"),
        source="fused",
        reason=None,
        text="blue",
        error=None,
        seconds=0.1,
        deadline_s=2.0,
    )
    return dataclasses.replace(true, **changes)


def ending_of(one: HistoryLine) -> Ending:
    return Checker(lambda prompt, version: TRUE[prompt, version]).ending(one)[0]


@pytest.mark.parametrize(
    ("changes", "ending"),
    [
        ({}, Ending.FUSED),
        ({"versions": ("second", "first")}, Ending.FUSED),
        ({"source": "receiver-only", "reason": "UNREACHABLE", "segments": (), "text": "red"}, Ending.ALONE),
        ({"source": "relayed", "reason": "NO_PLAN", "segments": ()}, Ending.ALONE),
        ({"error": "ACCESS_DENIED", "source": None}, Ending.FAILED),
        ({"seconds": 2.0 + GRACE_S}, Ending.FUSED),
    ],
)
def test_what_may_happen_is_no_violation(changes: dict[str, Any], ending: Ending) -> None:
    assert ending_of(asked(**changes)) is ending and ending not in VIOLATIONS


@pytest.mark.parametrize(
    ("changes", "ending"),
    [
        ({"segments": ("h", "c")}, Ending.WRONG),  # of another question
        ({"segments": ("h", "b"), "text": "seven"}, Ending.WRONG),  # of a version that was not there
        ({"segments": ("h",)}, Ending.WRONG),  # of a part alone
        ({"segments": ("h", "a", "a")}, Ending.WRONG),
        ({"text": "seven"}, Ending.WRONG),
        (
            {"versions": ("first", "second"), "text": "seven"},
            Ending.WRONG,
        ),  # segments of one, text of the other
        ({"reason": "UNREACHABLE"}, Ending.WRONG),
        ({"source": "receiver-only", "reason": None}, Ending.WRONG),
        ({"source": "receiver-only", "reason": "some words"}, Ending.WRONG),
        ({"error": "KeyError: 'x'", "source": None}, Ending.CRASH),
        ({"seconds": 2.1 + GRACE_S}, Ending.HANG),
        ({"seconds": 2.1 + GRACE_S, "error": "DEADLINE_EXCEEDED"}, Ending.HANG),
    ],
)
def test_a_planted_violation_is_found(changes: dict[str, Any], ending: Ending) -> None:
    assert ending_of(asked(**changes)) is ending and ending in VIOLATIONS


def test_a_request_id_that_comes_twice_is_found() -> None:
    checker, one = Checker(lambda prompt, version: TRUE[prompt, version]), asked()
    assert [checker.ending(one)[0] for _ in range(2)] == [Ending.FUSED, Ending.WRONG]


def test_a_line_of_the_history_has_hashes_and_no_text() -> None:
    line = asked(versions=("zebra-canary",), text="zebra-canary").to_json()
    assert "canary" not in line and '"segments": ["h", "a"]' in line


def test_reasons_are_those_of_the_catalogue_and_of_answers() -> None:
    assert {"BAD_CHECKSUM", "UNREACHABLE", "NO_PLAN", "EMPTY", "REQUESTED"} <= REASONS
