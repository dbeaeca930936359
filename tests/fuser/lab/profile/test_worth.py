"""What a profile makes of its answers."""

from types import SimpleNamespace
from typing import Any

from fuser.lab.evaluate.choices import ROWS
from fuser.lab.evaluate.prediction import Prediction
from fuser.lab.evaluate.report import Marks
from fuser.lab.profile.worth import worth
from kvwire.plan import WHOLE
from kvwire.segment import SliceKind

SIZE = 1_984_096  # bytes that single precision holds, but not the sum of 301


def test_the_mean_of_large_slices_is_no_more_than_the_most() -> None:
    names = [f"q{number}" for number in range(301)]
    task: Any = SimpleNamespace(
        rows=ROWS,
        kind=SliceKind.SHARED,
        transferred=("fused", "mismatched"),
        metric="strict",
        cap_bytes=lambda plan: SIZE,
    )
    said = [
        Prediction(row, "", name, "", {"strict": 1.0}, bytes=SIZE)
        for row in ("fused", "mismatched", "receiver")
        for name in names
    ]
    found = worth(Marks(said, {name: name for name in names}), task, WHOLE, WHOLE)
    assert (found.mean_bytes, found.max_bytes) == (SIZE, SIZE)
