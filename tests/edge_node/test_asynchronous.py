"""The assistant of an event loop: the same answers, and the loop is never blocked."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from edge_node import Ask, Assistant, AsyncAssistant, EdgeConfig
from fuser.receiver import Prefilled
from kvwire.errors import InvalidRequest
from tests.edge_node.sharer_server import RunningServer

QUESTION = "Who keeps the spare key?"


async def test_the_answers_are_the_assistants(assistant: Assistant) -> None:
    expected = assistant.ask(QUESTION, document="note-1").text
    own = AsyncAssistant(assistant)
    answers = await asyncio.gather(*(own.ask(QUESTION, document="note-1") for _ in range(3)))
    assert [(answer.text, answer.source) for answer in answers] == [(expected, "fused")] * 3
    async with own.stream(QUESTION, document="note-1") as stream:
        assert "".join([piece async for piece in stream]) == expected == stream.answer.text
    with pytest.raises(InvalidRequest):
        await own.ask(" ")


async def test_it_is_made_from_a_configuration(config: EdgeConfig) -> None:
    async with await AsyncAssistant.from_config(config) as own:
        assert (await own.ask(QUESTION, "note-1")).source == "fused"


async def test_an_ask_that_is_cancelled_stops_and_leaves_the_receiver_free(
    assistant: Assistant, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, steps = threading.Event(), threading.Event(), 0

    def generate(*_: Any) -> Iterator[str]:
        nonlocal steps
        while True:
            steps += 1
            begun.set()
            assert go_on.wait(20)
            yield "word "

    monkeypatch.setattr(Prefilled, "generate", generate)
    own = AsyncAssistant(assistant)
    asking = asyncio.create_task(own.ask(QUESTION, document="note-1"))
    assert await asyncio.to_thread(begun.wait, 20)
    asking.cancel()
    await asyncio.sleep(0)
    assert not asking.done()  # the step under way is waited for
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    monkeypatch.undo()
    assert steps <= 2
    assert (await own.ask(Ask(QUESTION, source="receiver-only"))).text


async def test_more_asks_than_a_loop_has_threads_are_under_way_at_once(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = (os.cpu_count() or 1) + 8  # a loop's own pool has four threads more than there are processors
    together = threading.Barrier(many)

    class Waiting:
        def __next__(self) -> str:
            together.wait(20)
            raise StopIteration

    monkeypatch.setattr(assistant, "stream", lambda *_: Waiting())
    streams = [AsyncAssistant(assistant).stream(QUESTION) for _ in range(many)]
    assert await asyncio.gather(*(anext(one, None) for one in streams)) == [None] * many


def test_a_child_that_was_forked_has_threads_of_its_own() -> None:
    forking = """
import os
from edge_node.asynchronous import _threads
def answered(): return _threads(os.getpid()).submit(lambda: "yes").result(10)
assert answered() == "yes"
child = os.fork()
if child == 0:
    os._exit(0 if answered() == "yes" else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", forking], timeout=120).returncode == 0


async def test_an_ask_that_waits_for_a_thread_is_given_up_at_once(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over = threading.Semaphore(0), threading.Event()

    class Hanging:
        def __next__(self) -> str:
            begun.release()
            over.wait(20)
            raise StopIteration

        def close(self) -> None:
            pass

    monkeypatch.setattr(assistant, "stream", lambda *_: Hanging())
    own = AsyncAssistant(assistant)
    hanging = [asyncio.ensure_future(anext(own.stream(QUESTION), None)) for _ in range(256)]
    try:
        while begun._value < 256:
            await asyncio.sleep(0.01)
        waiting = asyncio.ensure_future(anext(own.stream(QUESTION), None))
        await asyncio.sleep(0.05)
        waiting.cancel()
        done, _ = await asyncio.wait({waiting}, timeout=5)
        assert done and waiting.cancelled() and begun._value == 256
    finally:
        over.set()
    assert await asyncio.gather(*hanging) == [None] * 256
