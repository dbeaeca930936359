"""The history of a conversation: its earlier turns, and what of these the cloud is told.

Where a draft is asked for they are a section that the Sharer reads, so that it writes about what "it" means; the
Receiver reads question and slice alone, as it was trained. Otherwise they are text for the Receiver, never sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind

TOLD: Final = (SliceKind.DRAFT,)
"""Kinds of slice that are better for it: excerpts are not (docs/experiments/2026-11-30.md)."""
MOST_CHARS: Final = 4_000
"""Characters of history that are sent at most; turns are sent whole or not at all."""
_HEAD: Final = "Earlier questions and answers:\n"


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """A question, and what was answered; one of them may be empty.

    stays: what of it no request may hold: an answer that may quote notes, or all of a turn that the cloud was not asked
        in.
    """

    question: str
    answer: str = ""
    stays: Literal["nothing", "answer", "all"] = "nothing"


def noted(turns: Sequence[ChatTurn]) -> str:
    """Turns as a text for the Receiver alone."""
    said = ((("User", turn.question), ("Assistant", turn.answer)) for turn in turns)
    return "\n".join(f"{who}: {text}" for turn in said for who, text in turn if text)


def before(sections: Sequence[Section], turns: Sequence[ChatTurn], most: int) -> tuple[str, ...]:
    """The turns that are sent beside these sections, as texts, oldest first.

    Beside a section for the edge alone answers stay here, as they may quote it.

    Args:
        turns: oldest first.
        most: turns at most; they have `MOST_CHARS` characters at most too.
    """
    private = any(section.visibility is Visibility.EDGE for section in sections)
    room, texts = MOST_CHARS, list[str]()
    for turn in reversed(turns):
        if not turn.question or turn.stays == "all":
            continue
        answer = "" if private or turn.stays == "answer" else turn.answer
        text = f"Question: {turn.question}" + (f"\nAnswer: {answer}" if answer else "")
        room -= len(text)
        if len(texts) == most or room < 0:
            break
        texts.insert(0, text)
    return tuple(texts)


def told(sections: Sequence[Section], texts: Sequence[str]) -> tuple[Section, ...]:
    """The sections with these turns as one more before the question: what the cloud is asked."""
    if not texts:
        return tuple(sections)
    section = Section(Role.DOCUMENT, Visibility.SHARED, text=_HEAD + "\n".join(texts))
    at = max((i for i, s in enumerate(sections) if s.role is Role.QUESTION), default=len(sections))
    return (*sections[:at], section, *sections[at:])
