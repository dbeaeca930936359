"""Questions that their documents do not answer: does a row invent, or does it say nothing that it read there?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from fuser.lab.evaluate.prediction import Prediction
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.lab.evaluate.score import normalise


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


def _within(said: str, text: str) -> bool:
    return bool(said) and f" {said} " in f" {normalise(text)} "
