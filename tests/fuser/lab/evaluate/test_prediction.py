"""Answers survive the end of the process that made them."""

from pathlib import Path

import pytest

from fuser.lab.evaluate.prediction import Prediction, PredictionLog

ONE = Prediction("fused", "int8:m8", "q1", "bay 14 — Süd\u2028", {"exact_match": 1.0, "f1": 1.0}, 0.25, 512)
TWO = Prediction("fused", "int8:m8", "q2", "", {"exact_match": 0.0, "f1": 0.0})


def test_a_log_gives_back_what_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "run" / "predictions.jsonl"
    log = PredictionLog(path)
    log.append([ONE, TWO])
    again = PredictionLog(path)
    assert again.predictions == log.predictions == [ONE, TWO]
    assert again.of(("fused", "int8:m8")) == {"q1": ONE, "q2": TWO}
    assert again.of(("fused", "")) == {}


def test_a_line_cut_off_by_a_kill_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    PredictionLog(path).append([ONE, TWO])
    path.write_bytes(path.read_bytes()[:-5])
    log = PredictionLog(path)
    assert log.predictions == [ONE]
    log.append([TWO])
    assert PredictionLog(path).predictions == [ONE, TWO]


def test_a_line_that_is_no_prediction_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    PredictionLog(path).append([ONE])
    path.write_text(path.read_text(encoding="utf-8") + '{"row": "fused"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 2 is no prediction"):
        PredictionLog(path)
