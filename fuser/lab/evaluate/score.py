"""Marks of answers over documents: exact match and F1 as the SQuAD 1.1 script has them, and what is invented."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from fuser.lab.evaluate.prediction import Prediction
from fuser.lab.evaluate.questions import DocumentQuestion

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def first_line(text: str) -> str:
    """An answer's first line that is not empty: what counts of it."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


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
    """All metrics of an answer, each in [0, 1], the best over the right answers.

    exact_match, f1: as SQuAD has them. contains: a right answer stands in the prediction, words as for exact match.
    """
    right = tuple(answers)
    return {
        "exact_match": float(exact_match(prediction, right)),
        "f1": f1(prediction, right),
        "contains": float(any(_within(normalise(answer), prediction) for answer in right)),
    }


def marks_of_parts(prediction: str, parts: Sequence[str]) -> dict[str, float]:
    """Metrics of an answer that should have several parts, in any order. both: it has all; parts: the share."""
    held = [_within(normalise(part), prediction) for part in parts]
    return {"both": float(all(held)), "parts": sum(held) / len(held)}


def abstaining(
    predictions: Iterable[Prediction], questions: Sequence[DocumentQuestion], alone: str = "receiver"
) -> list[Prediction]:
    """The same answers with two marks before their own.

    invents   the answer is a string of the document, which does not answer the question: words that also stand in the
              question, and an answer of no words, do not count
    abstains  the answer is what the row `alone` says, or no string of the document

    What the row `alone` repeats by chance from a document that it never read is no invention, but `invents` counts it;
    so neither is one less the other. Answers are compared as for exact match.
    """
    found = list(predictions)
    asked = {question.id: question for question in questions}
    own = {p.item: normalise(p.text) for p in found if p.row == alone}
    marked: list[Prediction] = []
    for prediction in found:
        question, said = asked[prediction.item], normalise(prediction.text)
        read = _within(said, question.document) and not _within(said, question.question)
        abstains = not read or said == own.get(prediction.item)
        right = {"abstains": float(abstains), "invents": float(read), **prediction.right}
        marked.append(replace(prediction, right=right))
    return marked


def _f1(prediction: list[str], answer: list[str]) -> float:
    if not prediction or not answer:
        return float(prediction == answer)
    same = sum((Counter(prediction) & Counter(answer)).values())
    return 2 * same / (len(prediction) + len(answer))


def _within(said: str, text: str) -> bool:
    return bool(said) and f" {said} " in f" {normalise(text)} "
