"""What is read from an answer to a question with choices.

`lenient` is the reading of the public code of arXiv 2510.03215, step by step, for the letters of any item. It takes
almost any letter for an answer, which rewards a letter bias. Tables report the strict one beside it
(`fuser.prompts.choice.named`).
"""

from __future__ import annotations

import re

from torch import Tensor

from fuser.prompts.choice import LETTERS, ChoiceItem, named

# Phrases that announce an answer, in the public evaluator's order, and what follows up to the end of a line.
_CUES = tuple(
    re.compile(rf"{cue}\s*(.*)", re.IGNORECASE)
    for cue in (
        "answer:",
        "your answer:",
        "the answer is",
        "correct answer is",
        "correct answer is:",
        "correct answer:",
        "jibu lako:",
        "jibu:",
        "jibu sahihi:",
        "response:",
        "choice:",
        "option:",
    )
)
_MATHS = ("+", "-", "*", "/", "=", "^", "mod", "sqrt", "sin", "cos", "tan")
_ANSWERING = ("jibu", "answer", "choice", "option", "response", "correct", "sahihi")


def lenient(text: str, letters: str) -> str | None:
    """The letter that an answer most likely means, or None.

    In this order: the first capital letter on the line behind a phrase that announces an answer (so "because" is none,
    "Because" is B); the last letter of its own in any case ("a" counts) that ends the text, then one before
    punctuation, then any; the last such capital anywhere. A text with signs of maths and no word for answering has no
    letters of its own.

    Args:
        letters: those of the item's choices, capitals.
    """
    text = text.strip()
    for cue in _CUES:
        found = cue.search(text)
        if found and (letter := next((c for c in found[1] if c in letters), None)):
            return letter
    own = rf"\b([{letters}])"
    for place in (rf"{own}\s*[.,!?:)]?\s*$", rf"{own}\s*[.,!?:)]\s", rf"{own}\b"):
        if alone := re.findall(place, text, re.IGNORECASE):
            return None if _is_maths(text) else str(alone[-1]).upper()
    return next((c for c in reversed(text) if c in letters), None)


def _is_maths(text: str) -> bool:
    lowered = text.lower()
    return any(sign in text for sign in _MATHS) and not any(word in lowered for word in _ANSWERING)


def best_letter(letters: Tensor, item: ChoiceItem) -> str:
    """Of the item's letters the one with the highest logit, of (10,)."""
    return LETTERS[int(letters[: len(item.choices)].argmax())]


def mark(text: str, letters: Tensor, item: ChoiceItem) -> dict[str, float]:
    """1 or 0 for each metric; no letter is wrong. letter: the best one at the first position, by logits (10,)."""
    read = {
        "lenient": lenient(text, item.letters),
        "strict": named(text, item.letters),
        "letter": best_letter(letters, item),
    }
    return {name: float(letter == item.letter) for name, letter in read.items()}
