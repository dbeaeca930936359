"""Marks of a multiple-choice answer."""

from __future__ import annotations

from torch import Tensor

from fuser.lab.evaluate.choice.extract import lenient
from fuser.lab.evaluate.speaker import Said
from fuser.prompts.choice import LETTERS, ChoiceItem, named

METRICS = ("lenient", "strict", "letter")
"""What was read from the text, leniently and strictly; and the letter with the highest logit at the first position."""


def best_letter(said: Said, item: ChoiceItem) -> str:
    """Of the item's letters the one with the highest logit."""
    return LETTERS[int(said.letters[: len(item.choices)].argmax())]


def mark(said: Said, item: ChoiceItem) -> dict[str, float]:
    """1 or 0 for each metric; no letter is wrong."""
    letters = item.letters
    read = (lenient(said.text, letters), named(said.text, letters), best_letter(said, item))
    return {name: float(letter == item.letter) for name, letter in zip(METRICS, read, strict=True)}


def letter_said(item: ChoiceItem, biased: Tensor) -> Said:
    """The answer of a row that says a letter and nothing else: the best of the item's, by biased logits (10,)."""
    return Said(LETTERS[int(biased[: len(item.choices)].argmax())], biased, 0.0)
