"""Conversation: questions that follow each other, each asked with those before it and their answers."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Self

from edge_node.answer import Answer
from edge_node.ask import Ask
from edge_node.history import ChatTurn
from edge_node.stream import AnswerStream
from kvwire.errors import InvalidRequest
from kvwire.section import Visibility

if TYPE_CHECKING:
    from edge_node.assistant import Assistant


class Conversation:
    """Questions to an assistant, one at a time, each with the history before it (`Ask.history`). Nothing is kept in the
    cloud but what it read of documents, for whoever asks again; leaving a `with` block forgets the turns.

    Args:
        about: fields of `Ask` for every question: a document, notes, a kind.

    Raises:
        InvalidRequest: as `Ask`.
    """

    def __init__(self, assistant: Assistant, **about: Any) -> None:
        self._assistant, self._about = assistant, about
        self._turns: list[ChatTurn] = []
        self._asked: tuple[Ask, AnswerStream] | None = None
        Ask("?", **about)  # refused here rather than at the first question

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
        asked = question if isinstance(question, Ask) else Ask(question, **self._about)
        if asked.history:
            raise InvalidRequest("a conversation has its own history")
        if asked.question is None:
            raise InvalidRequest("in a conversation the question is no section")
        asked = dataclasses.replace(asked, history=self.history)
        stream = self._assistant.stream(asked)
        self._asked = asked, stream
        return stream


def _turn(asked: Ask, answer: Answer) -> ChatTurn:
    if answer.bytes_sent == 0:  # the cloud does not know of it
        return ChatTurn(asked.question or "", answer.text, "all")
    quotes = any(section.visibility is Visibility.EDGE for section in asked.prompt())
    return ChatTurn(asked.question or "", answer.text, "answer" if quotes else "nothing")
