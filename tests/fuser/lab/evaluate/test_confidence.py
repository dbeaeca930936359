"""Confidence: the regression finds what tells, the threshold loses few, the measures are what they say."""

import json
from pathlib import Path
from random import Random

import pytest

from fuser.bundle.bundle import Bundle
from fuser.bundle.config import ConfidenceConfig
from fuser.lab.evaluate.confidence import Judged, auc, fitted, fitted_from, judged, keep, reliability, worth
from fuser.lab.evaluate.prediction import Prediction, PredictionLog
from kvwire.segment import SliceKind

SURE = {"mean": -0.1, "least": -0.3, "first": -0.1, "abstain": -6.0}


def answers(count: int = 400, seed: int = 3) -> list[Judged]:
    """Answers of which those with a higher mean are right more often; every fifth is an abstention."""
    random, found = Random(seed), []
    for number in range(count):
        mean = -2 * random.random()
        right = random.random() < 1 + mean / 2
        signals = {"mean": mean, "least": random.random(), "first": 0.5, "abstain": random.random()}
        found.append(Judged(signals, right, number % 5 == 0, own=right or number % 2 == 0))
    return found


def test_the_regression_finds_the_signal_that_tells_and_is_calibrated() -> None:
    judge = fitted(answers())
    found = worth(answers(seed=4), judge)
    assert judge.weights["mean"] > 1 and abs(judge.weights["least"]) < 1
    assert found["auc"] > 0.75 and found["calibration_error"] < 0.1


def test_the_threshold_withholds_no_more_right_answers_than_it_may() -> None:
    some = answers()
    judge = fitted(some, most_lost=0.05)
    found = worth(some, judge)
    lost = found["plain"]["right"] - found["withheld"]["right"]
    assert 0.03 < lost <= 0.05 and found["withheld"]["invented"] < found["plain"]["invented"]
    assert fitted(some, most_lost=1.0).least_confidence > judge.least_confidence > 0


def test_too_few_answers_fit_nothing() -> None:
    with pytest.raises(ValueError, match="too few answers"):
        fitted([Judged(SURE, right=True, abstains=False, own=True)] * 50)


def test_a_score_that_orders_all_has_an_area_of_one_and_one_that_says_nothing_of_a_half() -> None:
    right = [True, True, False, False]
    assert auc([0.9, 0.8, 0.2, 0.1], right) == 1.0 and auc([0.5] * 4, right) == 0.5
    assert auc([0.9, 0.1, 0.5, 0.5], right) == 0.5 and auc([0.1], [True]) is None


def test_the_bins_say_how_many_of_a_confidence_are_right() -> None:
    bins = reliability([0.05, 0.15, 0.9, 1.0], [False, True, True, True], bins=2)
    assert [one["count"] for one in bins] == [2, 2] and [one["right"] for one in bins] == [0.5, 1.0]
    assert bins[0]["confidence"] == pytest.approx(0.1)


def test_questions_without_an_answer_have_no_right_ones_and_strangers_slices_are_left_out() -> None:
    def said(row: str, item: str, text: str) -> Prediction:
        return Prediction(row, "m8", item, text, {"exact_match": 1.0}, signals=SURE)

    log = [
        said("fused", "1", "bay 14"),
        said("mismatched", "1", "bay 14"),
        said("fused", "2", "bay 14"),
        said("fused", "3", "Not stated."),
        said("drafted", "1", "bay 14"),
        Prediction("fused", "m8", "4", "bay 14", {"exact_match": 1.0}),
    ]
    found = judged(log, SliceKind.EXCERPT, "not stated", {"2"})
    assert [(one.right, one.own, one.abstains) for one in found] == [
        (True, True, False),
        (False, False, False),
        (True, True, True),
    ]


def test_a_fit_from_reports_is_kept_in_the_bundle_whose_hash_stays(tiny_bundle: Path, tmp_path: Path) -> None:
    plain = Bundle.load(tiny_bundle)
    folder, taught = tmp_path / "run", tmp_path / "bundle"
    plain.config = type(plain.config).from_json(
        plain.config.to_json().replace('"abstain": ""', '"abstain": "no"')
    )
    plain._hash = None
    saved = plain.save(taught)
    some = answers()
    PredictionLog(folder / "predictions.jsonl").append(
        Prediction(
            "fused",
            "",
            f"q{at}",
            "no" if one.abstains else "bay",
            {"exact_match": float(one.right)},
            signals=one.signals,
        )
        for at, one in enumerate(some)
    )
    (folder / "questions.jsonl").write_text(
        "".join(json.dumps({"item": f"q{at}", "answers": ["bay"]}) + "\n" for at in range(len(some)))
    )

    def report(source: str = "records:train", bundle: str = saved) -> Path:
        path, log = tmp_path / "report.json", folder / "predictions.jsonl"
        told = {
            "data": {"source": source, "cases": []},
            "bundle": {"sha256": bundle},
            "predictions": str(log),
        }
        path.write_text(json.dumps(told))
        return path

    found = fitted_from(taught, [report()])
    assert list(found) == [SliceKind.EXCERPT]
    keep(taught, found)
    read = Bundle.load(taught)
    assert read.hash == saved and read.config.confidence == {"excerpt": found[SliceKind.EXCERPT]}
    with pytest.raises(ValueError, match="heldout"):
        fitted_from(taught, [report("records:heldout")])
    with pytest.raises(ValueError, match="another bundle"):
        fitted_from(taught, [report(bundle="0" * 64)])


def test_a_confidence_is_a_probability_whatever_the_signals() -> None:
    judge = ConfidenceConfig({"mean": 1e6}, 0.0)
    assert judge.of({"mean": 1e6}) == pytest.approx(1.0) and judge.of({"mean": -1e6}) == pytest.approx(0.0)
