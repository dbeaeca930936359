"""The curve has a point a dial, and every point its transfer and its gaps."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from fuser.evaluate.curve import curve, curve_markdown, plot_curve
from fuser.evaluate.dial import Dial
from fuser.evaluate.prediction import Prediction
from fuser.evaluate.report import summarise
from fuser.evaluate.rows import dialled, label
from fuser.select import SelectionConfig
from kvwire.plan import Plan

DIALS = [
    Dial(Plan(codec=codec, positions=positions))
    for positions, codec in itertools.product((4, 0), ("raw", "int8"))
]
RIGHT = {"receiver": 2, "text": 12, "sharer": 14, "mismatched": 2, "fused": 9, "excerpt-text": 6, "own": 10}


def report(dials: list[Dial]) -> dict[str, Any]:
    rows = {name: found for name, found in dialled(dials).items() if found[0] in RIGHT}
    predictions = []
    for name, (row, dial) in rows.items():
        right = RIGHT[row] - (3 if "m4" in name and row == "fused" else 0)
        sent = 100 * (dial.plan.positions or 8) if row == "fused" else 0
        predictions += [
            Prediction(name, f"q{i}", "x", {"exact_match": float(i < right), "f1": 0.5}, 0.1, sent)
            for i in range(16)
        ]
    table = summarise(predictions, {name: label(*found) for name, found in rows.items()}, 16)
    return table | curve(table, SelectionConfig(positions=8), dials)


def test_one_dial_makes_no_curve() -> None:
    assert "curve" not in report(DIALS[:1])
    assert curve_markdown(report(DIALS[:1])) == ""


def test_every_point_is_compared_at_its_own_dial() -> None:
    points = report(DIALS)["curve"]
    assert [(p["positions"], p["plan"]) for p in points] == [(4, "raw"), (4, "int8"), (8, "raw"), (8, "int8")]
    for point in points:
        right = 6 if point["positions"] == 4 else 9
        found = point["differences"]["exact_match"]
        assert found["transfer"]["point"] == pytest.approx((right - 2) / 16)
        assert found["gap to text closed"]["point"] == pytest.approx((right - 2) / 10)
        assert found["gap to sharer closed"]["point"] == pytest.approx((right - 2) / 12)
        assert point["rows"]["fused"]["bytes_per_question"] == 100 * point["positions"]
        assert set(point["rows"]) == {"fused", "mismatched", "excerpt-text", "own"}


def test_the_table_has_a_line_a_point() -> None:
    text = curve_markdown(report(DIALS))
    lines = [line for line in text.splitlines() if line.startswith(("| 4 ", "| 8 "))]
    assert [line.split(" | ")[1] for line in lines] == ["raw", "int8", "raw", "int8"] * 2
    assert "(400)" in lines[0] and "(800)" in lines[3]


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_curve(report(DIALS), tmp_path / "new" / "curve.svg")
    assert "<svg" in (tmp_path / "new" / "curve.svg").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="no curve to draw"):
        plot_curve(report(DIALS[:1]), tmp_path / "curve.svg")
    unanswered = {"rows": [], "differences": {}}
    with pytest.raises(ValueError, match="time to answer"):
        plot_curve(unanswered | curve(unanswered, SelectionConfig(), DIALS), tmp_path / "curve.svg")
