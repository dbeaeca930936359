"""The local API over real HTTP: answers, JSON lines, errors with a reason and a fitting status, one at a time."""

import http.client
import json
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import uvicorn

from edge_node import Assistant
from edge_node.api import make_app
from edge_node.config import ApiConfig
from edge_node.turns import Turns
from kvwire.errors import AccessDenied, Busy, IncompatiblePeer
from tests.edge_node.sharer_server import Part, RunningServer, wait_until

QUESTION = "Who keeps the spare key?"


class Api:
    """A running API and the calls a test makes."""

    def __init__(self, port: int) -> None:
        self.port = port

    def call(
        self, body: object, method: str = "POST", path: str = "/v1/ask", **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON body (a list of values for JSON lines) and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, sent, {"Content-Type": "application/json"} | headers)
        response = connection.getresponse()
        text = response.read().decode()
        found = {name.lower(): value for name, value in response.getheaders()}
        connection.close()
        if "jsonl" in found.get("content-type", ""):
            return response.status, [json.loads(line) for line in text.splitlines()], found
        is_json = "json" in found.get("content-type", "")
        return response.status, json.loads(text) if is_json else text, found


@pytest.fixture
def api(assistant: Assistant) -> Iterator[Api]:
    app = make_app(assistant, ApiConfig(max_body_bytes=20_000, max_waiting=1))
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off", access_log=False)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield Api(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    thread.join(20)


def test_a_question_gets_the_assistants_answer(api: Api, assistant: Assistant) -> None:
    status, answer, _ = api.call({"question": QUESTION, "document": "note-1"})
    assert status == 200 and answer["source"] == "fused" and answer["positions"] == 8
    assert answer["text"] == assistant.ask(QUESTION, document="note-1").text


def test_a_stream_is_json_lines_with_the_answer_last(api: Api) -> None:
    status, lines, _ = api.call({"question": QUESTION, "document": "note-1", "stream": True})
    *pieces, last = lines
    assert status == 200 and pieces
    assert "".join(line["piece"] for line in pieces) == last["answer"]["text"]


def test_a_question_may_have_choices(api: Api, assistant: Assistant) -> None:
    _, answer, _ = api.call({"question": "Which key?", "choices": ["this one", "that one"]})
    assert answer["source"] == "fused"
    assert answer["text"] == assistant.ask("Which key?", choices=("this one", "that one")).text


def test_a_context_that_the_caller_brings_is_read_here_and_sent_nowhere(
    api: Api, assistant: Assistant, server: RunningServer
) -> None:
    text = "Ilse keeps the key."
    _, answer, _ = api.call({"question": QUESTION, "text": text, "source": "receiver-only"})
    assert (answer["source"], answer["reason"], answer["bytes_sent"]) == ("receiver-only", "REQUESTED", 0)
    assert answer["text"] == assistant.ask(QUESTION, notes=text, source="receiver-only").text
    _, fused, _ = api.call({"question": QUESTION, "text": text, "max_new_tokens": 2})
    assert fused["source"] == "fused" and fused["tokens"] <= 2
    assert [section.text for section in server.service.requests[-1].sections] == [QUESTION]


@pytest.mark.parametrize(
    ("body", "status", "reason", "named"),
    [
        ({"question": QUESTION, "document": "nobody's"}, 404, "NOT_FOUND", ""),
        ({"question": QUESTION, "colour": 1}, 400, "INVALID_REQUEST", "colour"),
        ({"question": 7}, 400, "INVALID_REQUEST", "question"),
        ({}, 400, "INVALID_REQUEST", "question"),
        ([], 400, "INVALID_REQUEST", ""),
        (b"{", 400, "INVALID_REQUEST", ""),
        (b"\xff", 400, "INVALID_REQUEST", ""),
        (b"[" * 15_000, 400, "INVALID_REQUEST", ""),
        ({"question": QUESTION, "source": "cloud"}, 400, "INVALID_REQUEST", "source"),
        ({"question": QUESTION, "max_new_tokens": 0}, 400, "INVALID_REQUEST", "max_new_tokens"),
        ({"question": QUESTION, "plan": {"codec": "morse"}}, 400, "UNSUPPORTED", "morse"),
        ({"question": QUESTION, "plan": {"codec": "raw", "last": 2**32}}, 400, "INVALID_REQUEST", "numbers"),
        ({"question": QUESTION, "max_bytes": 2**64}, 400, "INVALID_REQUEST", "max_bytes"),
        ({"question": QUESTION, "choices": ["A"]}, 400, "INVALID_REQUEST", "1 choices"),
        ({"question": "x" * 9_000}, 413, "TOO_LARGE", "question"),
        ({"question": "x" * 30_000}, 413, "TOO_LARGE", "request"),
    ],
)
def test_a_wrong_body_has_a_reason_and_a_fitting_status(
    api: Api, body: object, status: int, reason: str, named: str
) -> None:
    found, answer, _ = api.call(body)
    assert (found, answer["error"]["reason"]) == (status, reason)
    assert named in answer["error"]["message"]
    assert api.call({"question": QUESTION, "source": "receiver-only"})[0] == 200


@pytest.mark.parametrize(
    ("failure", "status"),
    [(AccessDenied(), 403), (IncompatiblePeer("bundle hash", "a", "b"), 409)],
)
def test_the_clouds_refusals_have_a_status_of_their_own_also_for_a_stream(
    api: Api, server: RunningServer, failure: Any, status: int
) -> None:
    for stream in (False, True):
        server.service.failures.append(failure)
        assert api.call({"question": QUESTION, "document": "note-1", "stream": stream})[0] == status


def test_a_page_in_a_browser_can_do_nothing(api: Api) -> None:
    body = {"question": QUESTION, "source": "receiver-only"}
    assert api.call(body, **{"Content-Type": "text/plain"})[0] == 400
    assert api.call(body, Host="evil.example")[0] == 400


def test_health_says_what_runs_here(api: Api, assistant: Assistant) -> None:
    status, found, _ = api.call(b"", "GET", "/healthz")
    assert status == 200 and found["bundle"] == assistant.bundle.hash and found["status"] == "ok"
    assert api.call(b"", "GET", "/v1/ask")[0] == 405


def test_more_requests_than_may_wait_are_told_to_come_again(api: Api, server: RunningServer) -> None:
    release = threading.Event()

    def slow(parts: Iterable[Part]) -> Iterable[Part | float]:
        while not release.is_set():
            yield 0.05
        yield from parts

    server.service.tamper = slow
    body = {"question": QUESTION, "document": "note-1"}
    found: list[tuple[int, Any, dict[str, str]]] = []
    threads = [threading.Thread(target=lambda: found.append(api.call(body))) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: bool(found), 20)
    release.set()
    for thread in threads:
        thread.join(30)
    status, answer, headers = found[0]
    assert (status, answer["error"]["reason"]) == (503, "BUSY") and int(headers["retry-after"]) >= 1
    assert [status for status, _, _ in found[1:]] == [200, 200]


def test_a_caller_who_goes_away_leaves_the_receiver_free(api: Api, server: RunningServer) -> None:
    def slow(parts: Iterable[Part]) -> Iterable[Part | float]:
        yield 0.5
        yield from parts

    server.service.tamper = slow
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=30)
    body = json.dumps({"question": QUESTION, "document": "note-1", "stream": True})
    connection.request("POST", "/v1/ask", body, {"Content-Type": "application/json"})
    wait_until(lambda: bool(server.service.requests))
    connection.close()
    assert api.call({"question": QUESTION, "source": "receiver-only"})[0] == 200


async def test_turns_are_given_out_in_order_and_bounded() -> None:
    turns = Turns(max_waiting=1)
    await turns.take()
    import asyncio

    waiting = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await turns.take()
    turns.give_back()
    await waiting
    abandoned = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    abandoned.cancel()
    with pytest.raises(asyncio.CancelledError):
        await abandoned
    turns.give_back()
    await turns.take()
