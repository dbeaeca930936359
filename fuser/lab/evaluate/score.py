"""Exact match and F1 as SQuAD defines them (arXiv 1606.05250, the official v1.1 script)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Iterable[str]) -> bool:
    """Whether the normalised prediction equals one of the normalised answers."""
    return normalise(prediction) in {normalise(answer) for answer in answers}


def f1(prediction: str, answers: Iterable[str]) -> float:
    """Best token F1 against the answers, in [0, 1]."""
    return max(
        (_f1(normalise(prediction).split(), normalise(answer).split()) for answer in answers), default=0.0
    )


def marks(prediction: str, answers: Iterable[str]) -> dict[str, float]:
    """Both metrics of an answer, each in [0, 1]: `exact_match` and `f1`, the best over the right answers."""
    right = tuple(answers)
    return {"exact_match": float(exact_match(prediction, right)), "f1": f1(prediction, right)}


def _f1(prediction: list[str], answer: list[str]) -> float:
    if not prediction or not answer:
        return float(prediction == answer)
    same = sum((Counter(prediction) & Counter(answer)).values())
    return 2 * same / (len(prediction) + len(answer))
