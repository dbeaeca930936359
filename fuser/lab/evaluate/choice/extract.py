"""Which letter an answer most likely means, as the public evaluator of Cache-to-Cache reads it.

This reading (that of the code of arXiv 2510.03215, step by step, for the letters of any item) takes almost any letter
for an answer, which rewards a letter bias. Tables report the strict one beside it (`fuser.prompts.choice.named`).
"""

from __future__ import annotations

import re

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
