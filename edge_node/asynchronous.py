"""AsyncAssistant: an Assistant for programs around an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

from edge_node.answer import Answer
from edge_node.ask import Ask
from edge_node.assistant import Assistant, Conversation
from edge_node.config import EdgeConfig
from edge_node.history import ChatTurn
from edge_node.stream import AnswerStream

_MOST_THREADS: Final = 256


@cache
def _threads(_: int) -> ThreadPoolExecutor:
    """Of a process, by its id: a child that was forked has none of its parent's threads.

    Asks wait for the cloud in these. The pool of an event loop has only a few more than there are processors.
    """
    return ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="kvwire-answer")


class AsyncAnswerStream:
    """The pieces of an `AnswerStream`, each made in a thread; `answer` is there once they have all come.

    256 pieces of a process may be waited for at once; the event loop's own pool is not used.
    """

    def __init__(self, stream: AnswerStream) -> None:
        self._stream = stream

    @property
    def answer(self) -> Answer:
        """The whole answer.

        Raises:
            RuntimeError: pieces are still to come.
        """
        return self._stream.answer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """The next piece. Cancelled, it waits for the Receiver's step: only then is the turn another's."""
        within = contextvars.copy_context()
        step = _threads(os.getpid()).submit(lambda: within.run(next, self._stream, None))
        waited = asyncio.wrap_future(step)
        try:
            piece = await asyncio.shield(waited)
        except asyncio.CancelledError:
            self.close()
            if not step.cancel():  # it has begun
                await asyncio.gather(waited, return_exceptions=True)
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, as `AnswerStream.close`."""
        self._stream.close()


class AsyncConversation:
    """A `Conversation` that blocks no event loop; its attributes and methods are that one's."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    @property
    def history(self) -> tuple[ChatTurn, ...]:
        """As `Conversation.history`."""
        return self._conversation.history

    def stream(self, question: str | Ask) -> AsyncAnswerStream:
        """As `Conversation.stream`."""
        return AsyncAnswerStream(self._conversation.stream(question))

    async def ask(self, question: str | Ask) -> Answer:
        """As `Conversation.ask`. Cancelled, the answer is given up."""
        return await _whole(self.stream(question))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._conversation.forget()


class AsyncAssistant:
    """Asks an `Assistant` and blocks no event loop.

    Attributes:
        assistant: the one that is asked.
    """

    def __init__(self, assistant: Assistant) -> None:
        self.assistant = assistant

    @classmethod
    async def from_config(cls, config: EdgeConfig | str | Path) -> AsyncAssistant:
        """As `Assistant.from_config`."""
        return cls(await asyncio.to_thread(Assistant.from_config, config))

    def stream(self, question: str | Ask, document: str | None = None) -> AsyncAnswerStream:
        """As `Assistant.stream`."""
        return AsyncAnswerStream(self.assistant.stream(question, document))

    async def ask(self, question: str | Ask, document: str | None = None) -> Answer:
        """As `Assistant.ask`. Cancelled, the answer is given up."""
        return await _whole(self.stream(question, document))

    def conversation(self, document: str | None = None, **about: Any) -> AsyncConversation:
        """As `Assistant.conversation`."""
        return AsyncConversation(self.assistant.conversation(document, **about))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection to the cloud."""
        await asyncio.to_thread(self.assistant.close)


async def _whole(stream: AsyncAnswerStream) -> Answer:
    async for _ in stream:
        pass
    return stream.answer
