"""The local API over real HTTP: answers, JSON lines, errors with a reason and a fitting status, one at a time."""

import asyncio
import http.client
import json
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from edge_node import Ask, Assistant
from edge_node.request_queue import RequestQueue
from edge_node.stream import AnswerStream
from fuser.receiver import Prefilled
from kvwire.errors import (
    AccessDenied,
    Busy,
    DeadlineExceeded,
    Draining,
    IncompatiblePeer,
    InternalError,
    KvwireError,
    entry_of,
)
from tests.edge_node.local_api import Api, serving_api
from tests.edge_node.sharer_server import Part, RunningServer, wait_until

QUESTION = "Who keeps the spare key?"


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
    assert answer["text"] == assistant.ask(Ask("Which key?", choices=("this one", "that one"))).text


def test_a_context_that_the_caller_brings_is_read_here_and_sent_nowhere(
    api: Api, assistant: Assistant, server: RunningServer
) -> None:
    text = "Ilse keeps the key."
    _, answer, _ = api.call({"question": QUESTION, "text": text, "source": "receiver-only"})
    assert (answer["source"], answer["reason"], answer["bytes_sent"]) == ("receiver-only", "REQUESTED", 0)
    assert answer["text"] == assistant.ask(Ask(QUESTION, notes=text, source="receiver-only")).text
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
        (b'{"question": "a \\ud800 b"}', 400, "INVALID_REQUEST", "surrogates"),
        (b'{"question": "Who?", "plan": {"codec": "\\udfff"}}', 400, "INVALID_REQUEST", "surrogates"),
        (b'{"question": "Who?", "deadline_s": Infinity}', 400, "INVALID_REQUEST", "deadline"),
        ({"question": ""}, 400, "INVALID_REQUEST", "there is no question"),
        ({"question": "\n\u3000"}, 400, "INVALID_REQUEST", "there is no question"),
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
    assert (found, answer["error"]["code"]) == (status, reason)
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
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1@evil.example:80", "[::1].evil.example"):
        status, told, _ = api.call(body, Host=host)
        assert (status, told["error"]["code"]) == (400, "INVALID_REQUEST"), host
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1:7480", "[::1]:7480"):
        assert api.call(body, Host=host)[0] == 200, host
    for origin in (
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://localhost:1@evil",
    ):
        status, told, headers = api.call(body, Origin=origin)
        assert (status, told["error"]["code"]) == (403, "ACCESS_DENIED"), origin
        assert not [name for name in headers if name.startswith("access-control-")]
    for origin in ("http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080"):
        assert api.call(body, Origin=origin)[0] == 200, origin


def test_a_page_of_another_origin_searches_nothing_where_it_sends_no_origin(
    api: Api, server: RunningServer
) -> None:
    path = "/v1/kvwire/search?q=spare%20key"
    for site in ("cross-site", "same-site", ""):
        status, told, _ = api.call(b"", "GET", path, **{"Sec-Fetch-Site": site})
        assert (status, told["error"]["code"]) == (403, "ACCESS_DENIED"), site
    assert server.service.searches == []
    assert api.call(b"", "GET", "/", **{"Sec-Fetch-Site": "cross-site"})[0] == 200  # by a link
    for site in ("same-origin", "none"):
        assert api.call(b"", "GET", path, **{"Sec-Fetch-Site": site})[0] == 200, site


def test_health_says_what_runs_here(api: Api, assistant: Assistant) -> None:
    status, found, _ = api.call(b"", "GET", "/healthz")
    assert status == 200 and found["bundle"] == assistant.bundle.hash and found["status"] == "ok"
    assert (found["kinds"], found["kind"], found["keys"]) == (
        ["draft", "excerpt", "shared"],
        "excerpt",
        False,
    )


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/v1/moduls", 404, "NOT_FOUND"),
        ("POST", "/v1/ask/", 404, "NOT_FOUND"),
        ("POST", "/v1/chat/completions/", 404, "NOT_FOUND"),
        ("GET", "/page/", 404, "NOT_FOUND"),
        ("POST", "/", 405, "INVALID_REQUEST"),
        ("GET", "/v1/ask", 405, "INVALID_REQUEST"),
        ("GET", "/v1/chat/completions", 405, "INVALID_REQUEST"),
        ("OPTIONS", "/v1/chat/completions", 405, "INVALID_REQUEST"),
        ("POST", "/models", 405, "INVALID_REQUEST"),
        ("DELETE", "/healthz", 405, "INVALID_REQUEST"),
    ],
)
def test_a_call_that_is_not_there_is_refused_in_the_words_of_the_others(
    api: Api, method: str, path: str, status: int, reason: str
) -> None:
    found, told, headers = api.call(b"", method, path)
    assert (found, told["error"]["code"]) == (status, reason)
    assert set(told["error"]) == {"message", "type", "param", "code", "metadata"}
    assert ("allow" in headers) is (status == 405)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "status", "said"),
    [
        (Busy(60.0), 503, "no room now"),
        (Draining(60.0), 503, "is shutting down"),
        (InternalError(), 503, "its log says why"),
        (DeadlineExceeded(), 504, "did not come in time"),
    ],
)
def test_a_question_without_an_answer_has_a_status_of_its_own_and_the_whole_account(
    api: Api, server: RunningServer, failure: KvwireError, status: int, said: str, stream: bool
) -> None:
    server.service.failures.append(failure)
    body = {"question": QUESTION, "document": "note-1", "stream": stream}
    found, told, _ = api.call(body)
    assert found == status and set(told) == {"error", "answer"}
    reason = entry_of(type(failure)).reason
    assert told["error"]["code"] == told["answer"]["reason"] == reason
    assert (told["error"]["type"], told["error"]["param"]) == ("server_error", None)
    assert said in told["error"]["message"]
    assert (told["answer"]["answered"], told["answer"]["text"]) == (False, "")
    server.service.failures.append(failure)
    found, told, _ = api.call(body | {"guess": True, "stream": False})
    assert (found, told["source"], told["reason"]) == (200, "receiver-only", reason) and told["text"]


def test_a_cloud_that_is_not_there_is_named_and_what_to_do(cut_off: Assistant) -> None:
    with serving_api(cut_off) as api:
        status, told, _ = api.call({"question": QUESTION, "document": "note-1"})
        assert (status, told["error"]["code"]) == (503, "UNREACHABLE")
        assert "127.0.0.1:1" in told["error"]["message"] and "kvwire doctor" in told["error"]["message"]
        assert api.call({"question": QUESTION})[0] == 200  # the Receiver holds all of this one
        assert api.call({"question": QUESTION, "require_fused": True})[0] == 503


def test_what_asking_again_does_not_mend_has_another_status(api: Api) -> None:
    status, told, _ = api.call({"question": QUESTION, "document": "note-1", "max_bytes": 1})
    assert (status, told["error"]["code"]) == (422, "NO_PLAN")
    assert "more bytes" in told["error"]["message"] and told["answer"]["plan_reason"] == "BYTE_BUDGET"


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
    assert (status, answer["error"]["code"]) == (503, "BUSY") and int(headers["retry-after"]) >= 1
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


@pytest.mark.parametrize("leave", ["close", "half-close", "reset"])
def test_callers_that_leave_free_their_places_at_once(
    api: Api, server: RunningServer, leave: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has the turn and waits for its slice, one waits for the turn; there is room for no other."""
    server.service.tamper = lambda parts: [*list(parts)[:1], 60.0]
    body = {"question": QUESTION, "document": "note-1", "deadline_s": 50.0}
    callers = [api.begin(body)]
    wait_until(lambda: bool(server.service.requests))
    callers.append(api.begin(body))
    wait_until(lambda: api.is_full(body))
    server.service.tamper = lambda parts: parts
    # The one that waits goes first: else it may be given the turn before it is seen to leave.
    for caller in reversed(callers):
        if leave == "half-close":
            caller.shutdown(socket.SHUT_WR)
        elif leave == "reset":
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.close()
        else:
            caller.close()
    wait_until(server.service.cancelled.is_set, 5)
    began = time.monotonic()
    wait_until(lambda: api.call(body)[0] == 200, 10)
    assert time.monotonic() - began < 10
    assert len(server.service.requests) == 2  # the one that waited never asked the cloud
    for caller in callers:
        caller.close()


def test_a_crowd_that_leaves_is_in_nobodys_way(assistant: Assistant, server: RunningServer) -> None:
    server.service.tamper = lambda parts: [*list(parts)[:1], 60.0]
    body = {"question": QUESTION, "document": "note-1", "deadline_s": 50.0}
    with serving_api(assistant, max_waiting=8) as api:
        callers = [api.begin(body) for _ in range(9)]
        wait_until(lambda: bool(server.service.requests))
        wait_until(lambda: api.is_full(body))
        server.service.tamper = lambda parts: parts
        for caller in reversed(
            callers
        ):  # those that wait first: else each would have its turn before it is seen to leave
            caller.close()
        wait_until(lambda: api.call(body)[0] == 200, 10)
    assert len(server.service.requests) < len(callers)


def test_a_caller_that_leaves_ends_the_generation_at_its_next_step(
    api: Api, assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, go_on = [], threading.Event()

    def generate(*_: Any) -> Iterator[str]:
        while True:
            steps.append(len(steps))
            if len(steps) > 3:
                assert go_on.wait(20)
            yield "word "

    monkeypatch.setattr(Prefilled, "generate", generate)
    caller = api.begin({"question": QUESTION, "source": "receiver-only", "stream": True})
    wait_until(lambda: len(steps) > 3)
    closed, left = AnswerStream.close, threading.Event()
    monkeypatch.setattr(AnswerStream, "close", lambda stream: (closed(stream), left.set()))
    caller.close()
    assert left.wait(5)
    monkeypatch.undo()
    go_on.set()
    assert api.call({"question": QUESTION, "source": "receiver-only"})[0] == 200
    assert len(steps) == 4


def test_a_body_that_does_not_come_is_not_waited_for(assistant: Assistant) -> None:
    with serving_api(assistant, body_s=0.2) as api:
        callers = [api.begin({"question": QUESTION}, length=500) for _ in range(5)]
        for caller in callers:
            told = b""
            while received := caller.recv(65_536):  # up to the end: the connection is closed
                told += received
            assert told.startswith(b"HTTP/1.1 408 ")
            assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["code"] == "DEADLINE_EXCEEDED"
            caller.close()
        half = api.begin({"question": QUESTION}, length=500)
        half.shutdown(socket.SHUT_WR)
        half.close()
        assert api.call({"question": QUESTION, "source": "receiver-only"})[0] == 200


def test_a_head_without_end_is_refused(api: Api) -> None:
    caller = socket.create_connection(("127.0.0.1", api.port), timeout=20)
    caller.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000)
    told = http.client.HTTPResponse(caller)
    told.begin()
    assert told.status == 400 and json.loads(told.read())["error"]["code"] == "INVALID_REQUEST"
    caller.close()


def test_a_head_that_does_not_come_is_not_waited_for(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_node.serve._HEAD_S", 0.2)
    with serving_api(assistant) as api:
        caller = socket.create_connection(("127.0.0.1", api.port), timeout=20)
        caller.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert caller.recv(100) == b""
        caller.close()


SECOND_HEADS = {
    "half a head": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"G"),
    "a body that nobody reads": (
        b"POST /no HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n",
        b"x",
    ),
    "chunks that nobody reads": (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\n",
    ),
}


@pytest.mark.parametrize("what", SECOND_HEADS)
def test_after_an_answer_a_connection_is_not_held_by_a_few_bytes(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("edge_node.serve._HEAD_S", 1.0)
    whole, begun = SECOND_HEADS[what]
    with serving_api(assistant) as api:
        caller = socket.create_connection(("127.0.0.1", api.port), timeout=10)
        caller.sendall(whole)
        assert caller.recv(65_536).startswith(b"HTTP/1.1 ")
        caller.sendall(begun)
        began = time.monotonic()
        try:
            assert caller.recv(100) == b""
        except ConnectionResetError:  # closed while bytes of the body were on their way
            pass
        assert time.monotonic() - began < 4.0  # sooner than uvicorn's own limit for a silent connection
        caller.close()


def test_a_connection_serves_many_requests_that_come_in_time(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_node.serve._HEAD_S", 1.0)
    with serving_api(assistant) as api:
        caller = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
        for _ in range(4):
            caller.request("GET", "/healthz")
            assert caller.getresponse().read() and caller.sock is not None
            time.sleep(0.4)
        caller.close()


def test_more_connections_than_there_may_be_are_turned_away_in_the_words_of_the_others(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_node.serve._MOST_CONNECTIONS", 3)
    with serving_api(assistant) as api:
        held = [http.client.HTTPConnection("127.0.0.1", api.port, timeout=10) for _ in range(3)]
        for caller in held:
            caller.request("GET", "/healthz")
            assert caller.getresponse().read()
        with socket.create_connection(("127.0.0.1", api.port), timeout=10) as late:
            told = http.client.HTTPResponse(late)
            told.begin()
            assert told.status == 503 and told.getheader("retry-after") == "1"
            assert json.loads(told.read())["error"]["code"] == "BUSY"
            assert late.recv(10) == b""
        held[0].close()
        wait_until(lambda: api.call(None, "GET", "/healthz")[0] == 200)
        for caller in held[1:]:
            caller.request("GET", "/healthz")
            assert caller.getresponse().status == 200
            caller.close()


def test_a_server_takes_the_descriptors_that_it_may_have(assistant: Assistant) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] // 2, before[1]))
    try:
        with serving_api(assistant):
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_while_one_question_waits_for_its_slice_another_is_answered(
    assistant: Assistant, server: RunningServer
) -> None:
    server.service.tamper = lambda parts: [*list(parts)[:1], 60.0]
    with serving_api(assistant, at_once=2) as api:
        caller = api.begin({"question": QUESTION, "document": "note-1", "deadline_s": 50.0})
        wait_until(lambda: bool(server.service.requests))
        assert api.call({"question": QUESTION, "source": "receiver-only"})[0] == 200
        assert not server.service.cancelled.is_set()
        caller.close()


async def test_turns_are_given_out_in_order_and_bounded() -> None:
    turns, had, go_on = RequestQueue(max_waiting=1, at_once=2), [], asyncio.Event()

    async def take(name: str) -> None:
        async with turns.taken():
            had.append(name)
            await go_on.wait()

    async def tried(name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(take(name))
        await asyncio.sleep(0)
        return task

    first, second, third = [await tried(name) for name in ("first", "second", "third")]
    with pytest.raises(Busy):
        await take("fourth")
    third.cancel()
    with pytest.raises(asyncio.CancelledError):
        await third
    fifth = await tried("fifth")
    assert had == ["first", "second"]
    go_on.set()
    await asyncio.gather(first, second, fifth)
    assert had == ["first", "second", "fifth"]
