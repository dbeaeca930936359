"""How likely an answer is right: the regression that tells it, fitted on training questions, and what it is worth.

Over an answer that is given, not over abstentions: right is one that matches exactly; wrong is any other, and all that
are given over a document that does not hold the answer. Strangers' slices are left out: the wire lets none through.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from fuser.atomic import atomic_write
from fuser.bundle.bundle import CONFIG_FILE, Bundle
from fuser.bundle.config import BundleConfig, ConfidenceConfig
from fuser.kv.generate import SIGNALS
from fuser.lab.data.cases import UNANSWERABLE
from fuser.lab.evaluate.prediction import Prediction, PredictionLog
from fuser.lab.evaluate.score import normalise
from fuser.lab.logistic import fit_logistic
from fuser.lab.profile.grid import check_training
from kvwire.segment import SliceKind

ROWS: Final = {SliceKind.EXCERPT: "fused", SliceKind.DRAFT: "drafted"}
"""By kind of slice the row that has it."""
MOST_LOST: Final = 0.02
"""Right answers, of all questions, that the threshold of a bundle may withhold."""
_BINS: Final = 5
_PENALTY: Final = 4.0  # of the squared weights, a share of one answer's loss each: few answers say little
_FEWEST: Final = 10  # right answers and wrong ones, below which nothing is fitted


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer behind a slice. own: the document holds the answer to the question."""

    signals: Mapping[str, float]
    right: bool
    abstains: bool
    own: bool


def judged(
    predictions: Iterable[Prediction], kind: SliceKind, abstain: str, unanswerable: Collection[str] = ()
) -> list[Judged]:
    """The answers behind slices of a kind.

    Args:
        abstain: what the Receiver says in place of an answer. unanswerable: questions that have none.
    """
    return [
        Judged(
            one.signals,
            one.item not in unanswerable and one.right.get("exact_match", 0.0) > 0,
            normalise(one.text) == normalise(abstain),
            one.item not in unanswerable,
        )
        for one in predictions
        if one.row == ROWS[kind] and one.signals
    ]


def fitted(answers: Sequence[Judged], most_lost: float = MOST_LOST) -> ConfidenceConfig:
    """The regression under which right answers are most likely right, and the largest threshold that loses few.

    Args:
        answers: to training questions. most_lost: of the questions whose document holds the answer, the share whose
            right answer may be withheld.

    Raises:
        ValueError: too few right or wrong answers.
    """
    given = [one for one in answers if not one.abstains]
    right = torch.tensor([one.right for one in given], dtype=torch.float64, device="cpu")
    if min(int(right.sum()), int((1 - right).sum())) < _FEWEST:
        raise ValueError(f"too few answers: at least {_FEWEST} right and {_FEWEST} wrong ones are needed")
    names = [name for name in SIGNALS if all(name in one.signals for one in given)]
    rows = torch.tensor([[one.signals[name] for name in names] for one in given], device="cpu").double()
    shares = torch.full_like(right, 1 / len(rows))
    scaled, at_zero = fit_logistic(rows, right, _PENALTY / len(rows), shares)
    bias = float(at_zero)
    told = {name: round(value, 4) for name, value in zip(names, scaled.tolist(), strict=True)}
    found = ConfidenceConfig(told, round(bias, 4))
    kept = sorted(_confidence(found, one) for one in given if one.right)
    lost = min(int(most_lost * sum(one.own for one in answers)), len(kept) - 1)
    # Just under the least likely right answer that is still to be given.
    return ConfidenceConfig(told, round(bias, 4), round(max(0.0, kept[lost] - 1e-4), 4))


def fitted_from(
    bundle: Path, reports: Iterable[Path], most_lost: float = MOST_LOST
) -> dict[SliceKind, ConfidenceConfig]:
    """The regression of every kind of slice of which evaluations of a bundle have answers.

    Args:
        reports: of `kvwire eval` as JSON; the answers are read from the logs that they name.

    Raises:
        ValueError: a report of another bundle, or over data to evaluate on; no answers; or as `fitted`.
    """
    own = Bundle.load(bundle)
    answers: dict[SliceKind, list[Judged]] = {kind: [] for kind in ROWS}
    for path in reports:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["bundle"]["sha256"] != own.hash:
            raise ValueError(f"{path} is of another bundle")
        check_training(report["data"]["source"])
        folder = Path(report["predictions"]).parent
        asked = [json.loads(line) for line in (folder / "questions.jsonl").read_text("utf-8").splitlines()]
        without = {q["item"] for q in asked if UNANSWERABLE in report["data"]["cases"]}
        without |= {q["item"] for q in asked if q["answers"] == [own.config.abstain]}
        log = PredictionLog(Path(report["predictions"]))
        for kind, some in answers.items():
            some += judged(log.predictions, kind, own.config.abstain, without)
    if not any(answers.values()):
        raise ValueError(f"there are no answers of the rows {', '.join(ROWS.values())}")
    return {kind: fitted(some, most_lost) for kind, some in answers.items() if some}


def keep(bundle: Path, found: Mapping[SliceKind, ConfidenceConfig]) -> None:
    """Put confidences into the config.json of a bundle, in place of those that it has."""
    path = bundle / CONFIG_FILE
    config = BundleConfig.from_json(path.read_text(encoding="utf-8"))
    told = replace(config, confidence={str(kind): one for kind, one in found.items()})
    with atomic_write(path) as partial:
        partial.write_text(told.to_json(), encoding="utf-8")


def auc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """How often a right answer has a higher score than a wrong one; ties count half. None without either."""
    good = torch.tensor([s for s, ok in zip(scores, right, strict=True) if ok], device="cpu").double()
    bad = torch.tensor([s for s, ok in zip(scores, right, strict=True) if not ok], device="cpu").double()
    if not len(good) or not len(bad):
        return None
    above = (good[:, None] > bad).double() + 0.5 * (good[:, None] == bad).double()
    return float(above.mean())


def reliability(scores: Sequence[float], right: Sequence[bool], bins: int = _BINS) -> list[dict[str, float]]:
    """Answers in bins of equal width: mean `confidence`, share `right` and `count` of each that has any."""
    found = []
    for number in range(bins):
        at = [i for i, score in enumerate(scores) if min(int(score * bins), bins - 1) == number]
        if at:
            shares = sum(scores[i] for i in at) / len(at), sum(right[i] for i in at) / len(at)
            found.append({"confidence": shares[0], "right": shares[1], "count": len(at)})
    return found


def worth(answers: Sequence[Judged], judge: ConfidenceConfig) -> dict[str, Any]:
    """What confidences are worth on held-out questions; plain JSON values.

    auc, calibration_error (expected, over `bins`): of answers that are given without a threshold. plain, withheld:
    without and with the threshold, of own questions the shares "right", "refused" and "wrong", of others the share
    "invented".
    """
    given = [one for one in answers if not one.abstains]
    scores, right = [_confidence(judge, one) for one in given], [one.right for one in given]
    bins = reliability(scores, right)
    error = sum(one["count"] * abs(one["confidence"] - one["right"]) for one in bins) / max(1, len(given))
    return {
        "auc": auc(scores, right),
        "calibration_error": error,
        "bins": bins,
        "plain": _shares(answers, judge, 0.0),
        "withheld": _shares(answers, judge, judge.least_confidence)
        | {"least_confidence": judge.least_confidence},
    }


def _confidence(judge: ConfidenceConfig, one: Judged) -> float:
    """The confidence of an answer; 0 where a signal that it needs is not told."""
    return judge.of(one.signals) or 0.0


def _shares(answers: Sequence[Judged], judge: ConfidenceConfig, least_confidence: float) -> dict[str, Any]:
    own, others = [[one for one in answers if one.own is mine] for mine in (True, False)]

    def share(some: Sequence[Judged], wanted: bool | None) -> float | None:
        """Of some the share of answers that are right or wrong, or none at all."""
        told = [
            None if one.abstains or judge.withholds(one.signals, least_confidence) else one.right
            for one in some
        ]
        return sum(each is wanted for each in told) / len(some) if some else None

    return {
        "questions": len(own),
        "right": share(own, True),
        "wrong": share(own, False),
        "refused": share(own, None),
        "others": len(others),
        "invented": share(others, False),
    }


def table_of(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Markdown of what confidences are worth by line, without and with the bundle's threshold."""
    if not found:
        return []
    lines = [
        "",
        "Confidence: with it, answers under `least_confidence` are withheld. Questions with an answer and, "
        "invented, those without:",
        "",
        "| | least confidence | right % | wrong % | refused % | invented % | AUC | calibration error |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def cell(value: float | None, scale: float = 100.0) -> str:
        return "" if value is None else f"{scale * value:.{1 if scale > 1 else 2}f}"

    for name, one in found.items():
        withheld = one["withheld"]
        for shares, least in ((one["plain"], 0.0), (withheld, withheld["least_confidence"])):
            cells = [cell(shares[key]) for key in ("right", "wrong", "refused", "invented")]
            worth = [cell(one[key], 1.0) for key in ("auc", "calibration_error")]
            lines.append(f"| {name} | {least:.2f} | {' | '.join([*cells, *worth])} |")
    return lines
