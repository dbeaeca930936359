"""A report pairs rows question by question and hides nothing."""

from pathlib import Path

import pytest

from fuser.lab.evaluate.documents import ROWS as REGISTRY
from fuser.lab.evaluate.picture import plot_rows
from fuser.lab.evaluate.prediction import Prediction
from fuser.lab.evaluate.report import markdown, summarise

ROWS = REGISTRY.lines(["receiver", "text", "fused", "mismatched"])


def row(name: str, right: int, count: int = 50, sent: int = 0) -> list[Prediction]:
    return [
        Prediction(name, "", f"q{i}", "said", {"exact_match": float(i < right), "f1": 0.5}, 0.25, sent)
        for i in range(count)
    ]


def test_rows_have_counts_intervals_speed_and_bytes() -> None:
    report = summarise([*row("fused", 35, sent=512)], ROWS, REGISTRY, 50)
    (found,) = report["rows"]
    assert (found["questions"], found["complete"], found["bytes_per_question"]) == (50, True, 512.0)
    assert (found["seconds_per_question"], found["questions_per_minute"]) == (0.25, 240.0)
    exact = found["metrics"]["exact_match"]
    assert (exact["right"], exact["count"], exact["point"]) == (35.0, 50, 0.7)
    assert 0.55 < exact["low"] < 0.7 < exact["high"] < 0.82
    assert found["metrics"]["f1"]["point"] == 0.5


def test_differences_pair_questions_and_say_how_many() -> None:
    rows = [*row("receiver", 5), *row("text", 45), *row("fused", 35, count=40), *row("mismatched", 5)]
    report = summarise(rows, ROWS, REGISTRY, 50)
    transfer = report["differences"]["exact_match"]["transfer: fused - mismatched"]
    assert transfer["point"] == pytest.approx(30 / 40)
    assert transfer["count"] == 40
    closed = report["differences"]["exact_match"][
        "gap to text closed: (fused - receiver) / (text - receiver)"
    ]
    assert closed["point"] == pytest.approx(30 / 35)
    assert [r["complete"] for r in report["rows"]] == [True, True, False, True]


def test_drafts_have_a_transfer_and_are_compared_with_their_own_text() -> None:
    rows = [*row("drafted", 35), *row("drafted-mismatched", 5), *row("drafted-text", 40)]
    found = summarise(rows, REGISTRY.lines(["drafted"]), REGISTRY, 50)["differences"]["exact_match"]
    assert found["transfer: drafted - drafted-mismatched"]["point"] == pytest.approx(30 / 50)
    assert found["drafted - drafted-text"]["point"] == pytest.approx(-5 / 50)


def test_rows_over_no_common_question_have_no_difference() -> None:
    other = [Prediction("mismatched", "", "x", "said", {"exact_match": 1.0})]
    report = summarise([*row("fused", 3), *other], ROWS, REGISTRY, 50)
    assert report["differences"] == {"exact_match": {}, "f1": {}}


def test_the_table_shows_what_is_incomplete_not_run_and_left_out() -> None:
    report = summarise([*row("fused", 35), *row("mismatched", 5, count=10)], ROWS, REGISTRY, 50)
    report |= {"not_run": {"identical": "needs a bundle"}, "left_out": {"longer than the window": 3}}
    text = markdown(report)
    assert "| fused | 70.0 [" in text
    assert "10 (so far)" in text
    assert "- identical: needs a bundle" in text
    assert "- 3 questions longer than the window" in text


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_plot_is_a_picture(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "new" / f"rows.{ending}"
    plot_rows(summarise([*row("receiver", 3), *row("fused", 35, sent=512)], ROWS, REGISTRY, 50), path)
    start = path.read_bytes()[:8]
    assert start.startswith(b"\x89PNG" if ending == "png" else b"<?xml")


def test_a_plot_of_nothing_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_rows({"rows": []}, tmp_path / "rows.png")


@pytest.mark.parametrize(
    ("count", "wrong", "equivalent"), [(400, 0, True), (400, 8, True), (400, 60, False), (12, 0, False)]
)
def test_a_control_is_equivalent_to_nothing_only_where_enough_questions_say_so(
    count: int, wrong: int, equivalent: bool
) -> None:
    rows = [*row("receiver", 20, count), *row("mismatched", 20 + wrong, count), *row("fused", 200, count)]
    report = summarise(rows, ROWS, REGISTRY, count)
    found = report["equivalence"]["exact_match"]
    assert list(found) == ["mismatched - receiver"], "the slice itself is no control"
    value = found["mismatched - receiver"]
    assert value["low"] < value["point"] < value["high"] and value["count"] == count
    assert value["equivalent"] is equivalent
    assert ("not shown to be equivalent" in markdown(report)) is not equivalent
