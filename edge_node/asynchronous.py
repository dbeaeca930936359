"""AsyncAssistant: an Assistant for programs around an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self

from edge_node.answer import Answer
from edge_node.assistant import Assistant
from edge_node.config import EdgeConfig
from edge_node.stream import AnswerStream

P = ParamSpec("P")


class AsyncAnswerStream:
    """The pieces of an `AnswerStream`, each made in a thread of its own; `answer` is there once they have all come."""

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
        step = asyncio.ensure_future(asyncio.to_thread(next, self._stream, None))
        try:
            piece = await asyncio.shield(step)
        except asyncio.CancelledError:
            self.close()
            await asyncio.gather(step, return_exceptions=True)
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


def _streaming(
    stream: Callable[Concatenate[Assistant, P], AnswerStream],
) -> Callable[Concatenate[AsyncAssistant, P], AsyncAnswerStream]:
    def streamed(self: AsyncAssistant, /, *args: P.args, **more: P.kwargs) -> AsyncAnswerStream:
        """As `Assistant.stream`."""
        return AsyncAnswerStream(stream(self.assistant, *args, **more))

    return streamed


def _asking(
    stream: Callable[Concatenate[Assistant, P], AnswerStream],
) -> Callable[Concatenate[AsyncAssistant, P], Coroutine[Any, Any, Answer]]:
    async def asked(self: AsyncAssistant, /, *args: P.args, **more: P.kwargs) -> Answer:
        """As `Assistant.ask`. Cancelled, the answer is given up."""
        pieces = AsyncAnswerStream(stream(self.assistant, *args, **more))
        async for _ in pieces:
            pass
        return pieces.answer

    return asked


class AsyncAssistant:
    """Asks an `Assistant` and blocks no event loop. The arguments are those of `Assistant.ask`.

    Attributes:
        assistant: the one that is asked.
    """

    def __init__(self, assistant: Assistant) -> None:
        self.assistant = assistant

    @classmethod
    async def from_config(cls, config: EdgeConfig | str | Path) -> AsyncAssistant:
        """As `Assistant.from_config`."""
        return cls(await asyncio.to_thread(Assistant.from_config, config))

    ask = _asking(Assistant.stream)
    stream = _streaming(Assistant.stream)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection to the cloud."""
        await asyncio.to_thread(self.assistant.close)
