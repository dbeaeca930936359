"""Conversations: their earlier turns, and what of these the cloud is told.

Where a draft is asked for they are a section that the Sharer reads, so that it writes about what "it" means; the
Receiver reads question and slice alone, as it was trained. Otherwise they are text for the Receiver, never sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self

from kvwire.errors import InvalidRequest
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind

if TYPE_CHECKING:
    from edge_node.answer import Answer
    from edge_node.ask import Ask
    from edge_node.stream import AnswerStream

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


class Conversation:
    """Questions to an assistant, one at a time, each with the history before it (`Ask.history`). Nothing is kept in the
    cloud but what it read of documents, for whoever asks again; leaving a `with` block forgets the turns.

    Args:
        ask: as `Assistant.stream`.
        about: what each question is that is a text alone, but for that text: a document, notes, a kind.
    """

    def __init__(self, ask: Callable[[Ask], AnswerStream], about: Ask) -> None:
        self._ask, self._about = ask, about
        self._turns: list[ChatTurn] = []
        self._asked: tuple[Ask, AnswerStream] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._turns, self._asked = [], None

    @property
    def history(self) -> tuple[ChatTurn, ...]:
        """The turns so far, oldest first; a question that was not answered to its end is none."""
        if self._asked is not None:
            asked, stream = self._asked
            if stream.finished:
                self._asked = None
                self._turns += [_turn(asked, stream.answer)] if stream.answer.answered else []
        return tuple(self._turns)

    def ask(self, question: str | Ask) -> Answer:
        """As `Assistant.ask`."""
        stream = self.stream(question)
        for _ in stream:
            pass
        return stream.answer

    def stream(self, question: str | Ask) -> AnswerStream:
        """As `Assistant.stream`. A text is asked with the fields of this conversation, an `Ask` with its own."""
        asked = dataclasses.replace(self._about, question=question) if isinstance(question, str) else question
        if asked.history:
            raise InvalidRequest("a conversation has its own history")
        if asked.question is None:
            raise InvalidRequest("in a conversation the question is no section")
        asked = dataclasses.replace(asked, history=self.history)
        stream = self._ask(asked)
        self._asked = asked, stream
        return stream


def _turn(asked: Ask, answer: Answer) -> ChatTurn:
    if answer.bytes_sent == 0:  # the cloud does not know of it
        return ChatTurn(asked.question or "", answer.text, "all")
    quotes = any(section.visibility is Visibility.EDGE for section in asked.prompt())
    return ChatTurn(asked.question or "", answer.text, "answer" if quotes else "nothing")
