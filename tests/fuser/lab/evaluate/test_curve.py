"""The curve has a point a plan, and every point its transfer and its gaps."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from fuser.heads.selection import SelectionConfig
from fuser.lab.evaluate.curve import curve, curve_markdown, plot_curve
from fuser.lab.evaluate.prediction import Prediction
from fuser.lab.evaluate.report import summarise
from fuser.lab.evaluate.rows import DOCUMENT_ROWS, rows_of
from kvwire.plan import Plan

PLANS = [
    Plan(codec=codec, positions=positions) for positions, codec in itertools.product((4, 0), ("raw", "int8"))
]
RIGHT = {"receiver": 2, "text": 12, "sharer": 14, "mismatched": 2, "fused": 9, "excerpt-text": 6, "own": 10}


def report(plans: list[Plan]) -> dict[str, Any]:
    rows = [row for row in rows_of(DOCUMENT_ROWS, plans) if row.kind in RIGHT]
    predictions = []
    for row in rows:
        right = RIGHT[row.kind] - (3 if row.plan.positions == 4 and row.kind == "fused" else 0)
        sent = 100 * (row.plan.positions or 8) if row.kind == "fused" else 0
        predictions += [
            Prediction(row.name, f"q{i}", "x", {"exact_match": float(i < right), "f1": 0.5}, 0.1, sent)
            for i in range(16)
        ]
    table = summarise(predictions, rows, 16)
    return table | curve(table, SelectionConfig(positions=8), plans)


def test_one_plan_makes_no_curve() -> None:
    assert "curve" not in report(PLANS[:1])
    assert curve_markdown(report(PLANS[:1])) == ""


def test_every_point_is_compared_by_its_own_plan() -> None:
    points = report(PLANS)["curve"]
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
    text = curve_markdown(report(PLANS))
    lines = [line for line in text.splitlines() if line.startswith(("| 4 ", "| 8 "))]
    assert [line.split(" | ")[1] for line in lines] == ["raw", "int8", "raw", "int8"] * 2
    assert "(400)" in lines[0] and "(800)" in lines[3]


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_curve(report(PLANS), tmp_path / "new" / "curve.svg")
    assert "<svg" in (tmp_path / "new" / "curve.svg").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="no curve to draw"):
        plot_curve(report(PLANS[:1]), tmp_path / "curve.svg")
    unanswered = {"rows": [], "differences": {}}
    with pytest.raises(ValueError, match="time to answer"):
        plot_curve(unanswered | curve(unanswered, SelectionConfig(), PLANS), tmp_path / "curve.svg")
