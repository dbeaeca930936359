"""What a profile makes of its answers."""

from types import SimpleNamespace
from typing import Any

from fuser.lab.evaluate.prediction import Prediction
from fuser.lab.profile.report import ALONE, Answers
from fuser.lab.profile.rows import Row
from kvwire.plan import Plan
from kvwire.segment import SliceKind

SIZE = 1_984_096  # bytes that single precision holds, but not the sum of 301


def test_the_mean_of_large_slices_is_no_more_than_the_most() -> None:
    plan = Plan(codec="raw")
    raw, names = Row("plan", plan), [f"q{number}" for number in range(301)]
    profiled: Any = SimpleNamespace(
        kind=SliceKind.SHARED,
        metric="exact_match",
        questions=names,
        groups={name: name for name in names},
        cap_bytes=lambda plan: SIZE,
    )
    said = [
        Prediction(row.name, name, "", {"exact_match": 1.0}, bytes=SIZE)
        for row in (raw, raw.control, ALONE)
        for name in names
    ]
    found = Answers(said, profiled, plan).plan(plan)
    assert (found.mean_bytes, found.max_bytes) == (SIZE, SIZE)
