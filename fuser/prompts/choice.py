"""Multiple-choice questions, the prompt that asks them, and the letter that a reply names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

LETTERS = "ABCDEFGHIJ"
"""Names of the choices, in order: an item has at most ten."""

# Possessive throughout: of a reply with blanks without end no part is read twice.
_NAMED = re.compile(
    r"(?:the correct answer is(?:\s*+:)?+)?+[\s\"'(\[*]*+([A-J])[\s\"')\]*]*+\.?+\s*+", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ChoiceItem:
    """A question with 2 to 10 choices; `answer` is the index of the right one. context: a text that it is about.

    Raises:
        ValueError: too few or too many choices, or an answer that is none of them.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    subject: str = ""
    context: str = ""

    def __post_init__(self) -> None:
        _check_number(self.choices)
        if not 0 <= self.answer < len(self.choices):
            raise ValueError(
                f"answer {self.answer} is not one of {len(self.choices)} choices, counted from 0"
            )

    @property
    def letter(self) -> str:
        return LETTERS[self.answer]

    @property
    def letters(self) -> str:
        """The letters of this item's choices."""
        return LETTERS[: len(self.choices)]


def choice_prompt(item: ChoiceItem) -> str:
    """The text of the shared QUESTION section that asks an item."""
    asked = f"{item.context}\n\n{item.question}" if item.context else item.question
    return with_choices(asked, item.choices)


def with_choices(question: str, choices: Sequence[str]) -> str:
    """A question with its choices: the paper's zero-shot prompt in meaning (arXiv 2510.03215, appendix).

    The form of the reply is told with an X: small models copy a spelt-out "A/B/C/D", or read it as A.

    Raises:
        ValueError: too few or too many choices.
    """
    _check_number(choices)
    names = LETTERS[: len(choices)]
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(names, choices, strict=True))
    letters = f"{', '.join(names[:-1])} or {names[-1]}"
    return (
        f"Answer this question accurately:\n\n{question}\n\nChoices:\n{listed}\n\n"
        "Read the question and every choice, and pick the single choice that is right. Do not explain. "
        f"Reply in this form only: The correct answer is X, where X is {letters}.\n\n"
        "The correct answer is"
    )


def choice_answer(item: ChoiceItem) -> str:
    """The reply that is trained on and that `named` accepts."""
    return f"The correct answer is {item.letter}."


def named(text: str, letters: str) -> str | None:
    """The letter that a reply names in the form asked for, None for any other reply.

    The form: a letter alone, or in "The correct answer is X"; quotes and a full stop are allowed.
    """
    found = _NAMED.fullmatch(text.strip())
    letter = found[1].upper() if found else ""
    return letter if letter and letter in letters else None


def _check_number(choices: Sequence[str]) -> None:
    if not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(f"{len(choices)} choices; 2 to {len(LETTERS)} are allowed")
