"""Turns: earlier questions and answers of a conversation, and what of them the cloud is told.

Over a document of the cloud the Sharer reads them, so that it chooses or drafts for what "it" means; the Receiver reads
the question and the slice alone, as it was trained. Otherwise they are text for the Receiver, which is never sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from kvwire.section import Role, Section, Visibility

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


def told(sections: Sequence[Section], turns: Sequence[Turn], most: int) -> tuple[tuple[Section, ...], int]:
    """What the cloud is asked: the sections, the last turns in the text of the question; and how many turns these are.

    Beside a section for the edge alone answers stay here, as they may quote it.

    Args:
        turns: oldest first.
        most: turns at most; they have `MOST_CHARS` characters at most too.
    """
    asked = list(sections)
    questions = [
        i for i, s in enumerate(asked) if s.role is Role.QUESTION and s.visibility is Visibility.SHARED
    ]
    private = any(section.visibility is Visibility.EDGE for section in sections)
    texts = [*_last(_texts(turns, private), most)] if questions else []
    if texts:
        last = asked[questions[-1]]
        text = "\nQuestion: ".join((*reversed(texts), last.text or ""))
        asked[questions[-1]] = dataclasses.replace(last, text=text)
    return tuple(asked), len(texts)


def _texts(turns: Sequence[Turn], private: bool) -> Iterator[str]:
    """What may be sent of each turn, newest first."""
    for turn in reversed(turns):
        if turn.question and turn.stays != "all":
            answer = "" if private or turn.stays == "answer" else turn.answer
            yield f"{turn.question}\nAnswer: {answer}" if answer else turn.question


def _last(texts: Iterator[str], most: int) -> Iterator[str]:
    room = MOST_CHARS
    for _, text in zip(range(most), texts, strict=False):
        room -= len(text)
        if room < 0:
            return
        yield text
