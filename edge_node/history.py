"""Turns: earlier questions and answers of a conversation, and what of them the cloud is told.

Over a document of the cloud the Sharer reads them, so that it chooses or drafts for what "it" means; the Receiver reads
the question and the slice alone, as it was trained. Otherwise they are text for the Receiver, which is never sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from kvwire.section import Role, Section, Visibility

_QUESTION: Final = "\nQuestion: "
_ANSWER: Final = "\nAnswer: "
MOST_CHARS: Final = 4_000
"""Characters of history that are sent at most; turns are sent whole or not at all."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A question, and what was answered; one of them may be empty.

    stays: what of it no request may hold: an answer that may quote notes, or all of a turn that the cloud was not asked
        in.
    """

    question: str
    answer: str = ""
    stays: Literal["nothing", "answer", "all"] = "nothing"


def noted(turns: Sequence[Turn]) -> str:
    """Turns as a text for the Receiver alone."""
    said = ((("User", turn.question), ("Assistant", turn.answer)) for turn in turns)
    return "\n".join(f"{who}: {text}" for turn in said for who, text in turn if text)


def before(sections: Sequence[Section], turns: Sequence[Turn], most: int, chars: int) -> tuple[str, ...]:
    """The turns that are sent with the question of these sections, as texts, oldest first.

    Beside a section for the edge alone answers stay here, as they may quote it.

    Args:
        turns: oldest first.
        most: turns at most; they have `MOST_CHARS` characters at most too.
        chars: that a question may have, the turns in it included.
    """
    at = _question(sections)
    if at is None:
        return ()
    private = any(section.visibility is Visibility.EDGE for section in sections)
    room = min(MOST_CHARS, chars - len(told(sections, [""])[at].text or ""))
    texts: list[str] = []
    for turn in reversed(turns):
        if not turn.question or turn.stays == "all":
            continue
        answer = "" if private or turn.stays == "answer" else turn.answer
        text = f"{turn.question}{_ANSWER}{answer}" if answer else turn.question
        room -= len(text) + len(_QUESTION)
        if len(texts) == most or room < 0:
            break
        texts.insert(0, text)
    return tuple(texts)


def told(sections: Sequence[Section], texts: Sequence[str]) -> tuple[Section, ...]:
    """The sections with these turns in the text of the question: it is the one place that forms them."""
    at = _question(sections)
    if at is None or not texts:
        return tuple(sections)
    text = _QUESTION.join((*texts, sections[at].text or ""))
    return (*sections[:at], dataclasses.replace(sections[at], text=text), *sections[at + 1 :])


def _question(sections: Sequence[Section]) -> int | None:
    """Which of the sections is the question, as far as the cloud may read it."""
    asked = [
        i for i, s in enumerate(sections) if s.role is Role.QUESTION and s.visibility is Visibility.SHARED
    ]
    return asked[-1] if asked else None
