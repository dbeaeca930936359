"""The OpenAI API, asked by OpenAI's own client: answers, streams, documents, and nothing that looks like an answer."""

import asyncio
import contextlib
import dataclasses
import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given, settings, strategies

from edge_node import Ask, Assistant, EdgeConfig
from edge_node.chat import ChatBody, Message
from edge_node.refusals import Refused
from fuser import Sampling
from fuser.config import BadConfig
from kvwire.errors import DeadlineExceeded, Draining, InternalError, InvalidRequest
from kvwire.section import Visibility
from tests.edge_node.local_api import Api, client_of, serving_api
from tests.edge_node.sharer_server import Part, RunningServer, wait_until

QUESTION = "Who keeps the spare key?"
ASKED: list[Any] = [{"role": "user", "content": QUESTION}]
ABOUT: dict[str, Any] = {"kvwire": {"document": "note-1"}}
ROOT = Path(__file__).parent.parent.parent
PATH = "/v1/chat/completions"


def test_the_client_asks_about_a_document_and_sees_where_the_answer_came_from(
    client: openai.OpenAI, assistant: Assistant
) -> None:
    expected = assistant.ask(QUESTION, document="note-1")
    for model, extra in (("kvwire", ABOUT), ("kvwire/note-1", {}), ("kvwire/note-1", ABOUT)):
        found = client.chat.completions.create(model=model, messages=ASKED, extra_body=extra)
        assert found.choices[0].message.content == expected.text != ""
        assert (found.model, found.choices[0].finish_reason) == (model, "length")
        assert found.usage is not None
        assert found.usage.prompt_tokens == expected.prompt_tokens > 0
        assert found.usage.total_tokens == expected.prompt_tokens + expected.tokens
        account = found.usage.model_extra["kvwire"]  # type: ignore[index]
        assert (account["source"], account["reason"], account["document"]) == ("fused", None, "note-1")
        assert (account["kind"], account["positions"]) == ("excerpt", 8) and account["bytes_received"] > 0
        assert account["timings"]["total"] > 0 and "text" not in account
        assert set(account) == {*dataclasses.asdict(expected)} - {"text"}


@pytest.mark.parametrize("usage", [False, True])
def test_a_stream_has_the_text_in_chunks_and_the_account_in_the_last(
    client: openai.OpenAI, assistant: Assistant, usage: bool
) -> None:
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
    with client.chat.completions.create(model="kvwire/note-1", messages=ASKED, stream=True, **more) as stream:
        chunks = list(stream)
    with_choices = [chunk for chunk in chunks if chunk.choices]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in with_choices)
    assert text == assistant.ask(QUESTION, document="note-1").text
    assert len({chunk.id for chunk in chunks}) == 1 and chunks[0].choices[0].delta.role == "assistant"
    reasons = [chunk.choices[0].finish_reason for chunk in with_choices]
    assert reasons == [None] * (len(reasons) - 1) + ["length"]
    account = with_choices[-1].model_extra["kvwire"]  # type: ignore[index]
    assert (account["source"], account["positions"]) == ("fused", 8)
    assert (chunks[-1].usage is not None) is usage is (len(chunks) > len(with_choices))
    if usage:
        assert chunks[-1].usage.model_extra["kvwire"] == account  # type: ignore[index, union-attr]


async def test_the_asynchronous_client_asks_too(api: Api, assistant: Assistant) -> None:
    expected = assistant.ask(QUESTION, document="note-1").text
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{api.port}/v1", api_key="none") as client:
        first, second = await asyncio.gather(
            *(client.chat.completions.create(model="kvwire/note-1", messages=ASKED) for _ in range(2))
        )
        assert first.choices[0].message.content == second.choices[0].message.content == expected
        stream = await client.chat.completions.create(model="kvwire/note-1", messages=ASKED, stream=True)
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(said) == expected


def test_models_are_told_with_and_without_v1(api: Api) -> None:
    for base in ("/v1", "", "/v1/"):
        with client_of(api, base) as client:
            assert [model.id for model in client.models.list()] == ["kvwire"]
            assert client.models.retrieve("kvwire/note-1").id == "kvwire/note-1"
            assert client.chat.completions.create(model="kvwire", messages=ASKED).choices
            for model in ("gpt-4o", "kvwire/"):
                with pytest.raises(openai.NotFoundError) as caught:
                    client.models.retrieve(model)
                assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_documents_that_are_configured_are_listed(assistant: Assistant) -> None:
    with serving_api(assistant, documents=("note-1", "a/b")) as api, client_of(api) as client:
        assert [model.id for model in client.models.list()] == ["kvwire", "kvwire/note-1", "kvwire/a/b"]
        assert client.models.retrieve("kvwire/a/b").owned_by == "kvwire"


def test_a_relayed_text_says_so_and_ends_at_a_stop(
    config: EdgeConfig, assistant: Assistant, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.service, "relay_text", "Behind the clock, says Ilse.")
    config = dataclasses.replace(config, share=dataclasses.replace(config.share, relay=True))
    relaying = Assistant(config, assistant.receiver, assistant.client)
    with serving_api(relaying) as api, client_of(api) as client:

        def said(most: int, **more: Any) -> tuple[str | None, str, str]:
            extra = {"kvwire": {"document": "note-1", "max_bytes": most}}
            found = client.chat.completions.create(model="kvwire", messages=ASKED, extra_body=extra, **more)
            account = found.usage.model_extra["kvwire"]  # type: ignore[index, union-attr]
            assert account["reason"] == "NO_PLAN"
            return found.choices[0].message.content, found.choices[0].finish_reason, account["source"]

        assert said(40) == ("Behind the clock, says Ilse.", "stop", "relayed")
        assert said(40, stop=", says") == ("Behind the clock", "stop", "relayed")
        assert said(10) == ("Behind the", "length", "relayed")


def test_a_temperature_that_the_receiver_cannot_have_is_refused_before_the_cloud_is_asked(
    client: openai.OpenAI, assistant: Assistant, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assistant.receiver.model.config, "logits_scaling", 8.0, raising=False)
    with pytest.raises(openai.BadRequestError, match="logits_scaling"):
        client.chat.completions.create(model="kvwire/note-1", messages=ASKED, temperature=1.0)
    assert not server.service.requests
    assert client.chat.completions.create(model="kvwire/note-1", messages=ASKED).choices


@pytest.mark.parametrize("history", [True, False])
def test_system_prompts_and_notes_are_sent_nowhere_and_earlier_turns_where_they_may(
    client: openai.OpenAI, assistant: Assistant, server: RunningServer, history: bool
) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "Answer in one canary-a."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Is canary-b "}, {"type": "text", "text": "in?"}],
        },
        {"role": "assistant", "content": "canary-c.", "refusal": None, "annotations": [], "audio": None},
        {"role": "developer", "content": "Be canary-d."},
        *ASKED,
    ]
    extra = {
        "kvwire": {"document": "note-1", "notes": "The canary-e sings.", "kind": "draft", "history": history}
    }
    seen = []
    begin = assistant.receiver.begin
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            assistant.receiver, "begin", lambda sections: (seen.append(sections), begin(sections))[1]
        )
        found = client.chat.completions.create(model="kvwire", messages=messages, extra_body=extra)
    assert found.usage is not None and found.usage.model_extra["kvwire"]["source"] == "fused"  # type: ignore[index]
    own = [section.text for section in seen[0] if section.visibility is Visibility.EDGE]
    assert own == [
        "Answer in one canary-a.",
        "Be canary-d.",
        "The canary-e sings.",
    ]
    (request,) = server.service.requests
    told = [("Earlier questions and answers:\nQuestion: Is canary-b in?", None)] if history else []
    sent = [(s.text, s.document_id) for s in request.sections]
    assert sent == [(None, "note-1"), *told, (QUESTION, None)]


def test_earlier_turns_go_with_a_question_about_a_document(
    client: openai.OpenAI, server: RunningServer
) -> None:
    messages: list[Any] = [
        {"role": "assistant", "content": "How may I help?"},
        {"role": "user", "content": "Who keeps the key?"},
        {"role": "assistant", "content": "Ilse."},
        {"role": "user", "content": "Hello?"},
        *ASKED,
    ]
    found = client.chat.completions.create(
        model="kvwire/note-1", messages=messages, extra_body={"kvwire": {"kind": "draft"}}
    )
    assert found.usage is not None and found.usage.model_extra["kvwire"]["turns_sent"] == 2  # type: ignore[index]
    (request,) = server.service.requests
    told = "Earlier questions and answers:\nQuestion: Who keeps the key?\nAnswer: Ilse.\nQuestion: Hello?"
    assert [section.text for section in request.sections] == [None, told, QUESTION]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (DeadlineExceeded(), 504, "DEADLINE_EXCEEDED"),
        (Draining(60.0), 503, "DRAINING"),
        (InternalError(), 503, "INTERNAL"),
        (None, 422, "NO_PLAN"),
    ],
)
def test_a_question_without_an_answer_is_an_error_with_the_whole_account(
    client: openai.OpenAI, server: RunningServer, failure: Any, status: int, code: str, stream: bool
) -> None:
    asked = {"document": "note-1"} | ({} if failure else {"max_bytes": 1})
    if failure:
        server.service.failures.append(failure)
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(
            model="kvwire", messages=ASKED, stream=stream, extra_body={"kvwire": asked}
        )
    assert (caught.value.status_code, caught.value.code) == (status, code)
    account = caught.value.body["kvwire"]  # type: ignore[index]
    assert (account["answered"], account["reason"]) == (False, code)
    if failure:
        server.service.failures.append(failure)
        extra = {"kvwire": asked | {"guess": True}}
        guess = client.chat.completions.create(model="kvwire", messages=ASKED, extra_body=extra)
        account = guess.usage.model_extra["kvwire"]  # type: ignore[index, union-attr]
        assert (account["source"], account["reason"]) == ("receiver-only", code)


def test_an_error_that_asking_again_does_not_mend_is_not_asked_again(
    api: Api, cut_off: Assistant, server: RunningServer
) -> None:
    with client_of(api, retries=2) as client, pytest.raises(openai.InternalServerError):
        server.service.failures += [InternalError()]
        client.chat.completions.create(model="kvwire/note-1", messages=ASKED)
    assert not server.service.requests
    with serving_api(cut_off) as gone, client_of(gone) as client:
        with pytest.raises(openai.InternalServerError, match="kvwire doctor") as caught:
            client.chat.completions.create(model="kvwire/note-1", messages=ASKED)
        assert caught.value.code == "UNREACHABLE"


def test_an_error_after_the_first_piece_ends_the_stream_as_one(
    client: openai.OpenAI, broken_stream: str
) -> None:
    got = []
    with pytest.raises(openai.APIError) as caught:
        for chunk in client.chat.completions.create(model="kvwire", messages=ASKED, stream=True):
            got.append(chunk.choices[0].delta.content)
    assert got == ["", "one "] and caught.value.code == "INTERNAL"
    assert broken_stream not in str(caught.value.body)


def test_sampling_stops_and_limits_are_the_assistants(client: openai.OpenAI, assistant: Assistant) -> None:
    def said(**more: Any) -> Any:
        return client.chat.completions.create(model="kvwire/note-1", messages=ASKED, **more).choices[0]

    expected = assistant.ask(QUESTION, document="note-1").text
    for nothing in ({}, {"temperature": 0}, {"temperature": 0.0, "top_p": 0.5, "seed": 1, "n": 1}):
        assert said(**nothing).message.content == expected
    sampling = Sampling(1.5, 0.9, 5)
    drawn = assistant.ask(Ask(QUESTION, document="note-1", sampling=sampling)).text
    assert said(temperature=1.5, top_p=0.9, seed=5).message.content == drawn != expected
    letter = expected[len(expected) // 2]
    ended = said(stop=letter)
    assert ended.message.content == expected.partition(letter)[0].rstrip()
    assert said(stop=["nowhere", letter]).message.content == ended.message.content
    assert ended.finish_reason == "stop"
    short = assistant.ask(Ask(QUESTION, document="note-1", max_new_tokens=2)).text
    assert said(max_tokens=2).message.content == said(max_completion_tokens=2).message.content == short
    assert said(max_tokens=100_000).finish_reason in ("stop", "length")


def test_each_of_many_messages_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Message] = []

    def equal(one: Message, other: object) -> bool:
        compared.append(one)
        return one is other

    monkeypatch.setattr(Message, "__eq__", equal)
    system = {"role": "system", "content": "Be brief."}
    body = ChatBody.parse({"model": "kvwire", "messages": [system, *ASKED] * 500})
    asked = body.ask(8)
    assert len(asked.sections) == 500 and asked.question == QUESTION and not compared
    with pytest.raises(Refused, match="messages are at most 1000, not 1001") as refused:
        ChatBody.parse({"model": "kvwire", "messages": ASKED * 1_001})
    assert (refused.value.param, refused.value.status) == ("messages", 400)


def test_what_is_harmless_is_taken_and_asks_for_nothing(client: openai.OpenAI, assistant: Assistant) -> None:
    found = client.chat.completions.create(
        model="kvwire",
        messages=ASKED,
        user="someone",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        tools=[],
        tool_choice="none",
        response_format={"type": "text"},
        logprobs=False,
        presence_penalty=0,
        parallel_tool_calls=True,
        extra_body={"stop": None, "kvwire": {"choices": ["this", "that"], "source": "receiver-only"}},
    )
    expected = assistant.ask(Ask(QUESTION, choices=("this", "that"), source="receiver-only"))
    assert found.choices[0].message.content == expected.text


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"tools": [TOOL]}, "tools", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "unsupported_parameter"),
        ({"functions": [{}]}, "functions", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"store": True}, "store", "unsupported_parameter"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "unsupported_parameter"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "unsupported_value"),
        (
            {"messages": [{"role": "user", "content": [IMAGE]}]},
            "messages[0].content[0].type",
            "unsupported_value",
        ),
        (
            {"messages": [{"role": "user", "tool_calls": [TOOL]}]},
            "messages[0].tool_calls",
            "unsupported_parameter",
        ),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "INVALID_REQUEST"),
        ({"messages": [{"role": "user", "content": "x", "hue": 1}]}, "messages[0].hue", "INVALID_REQUEST"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "INVALID_REQUEST"),
        ({"messages": ["x"]}, "messages[0]", "INVALID_REQUEST"),
        ({"messages": "x"}, "messages", "INVALID_REQUEST"),
        ({"messages": []}, "messages", "INVALID_REQUEST"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages", "INVALID_REQUEST"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "I"}]}, "messages", "INVALID_REQUEST"),
        ({"model": None}, "model", "INVALID_REQUEST"),
        ({"messages": None}, "messages", "INVALID_REQUEST"),
        ({"hue": 1}, "hue", "INVALID_REQUEST"),
        ({"temperature": 2.5}, "temperature", "INVALID_REQUEST"),
        ({"temperature": "hot"}, "temperature", "INVALID_REQUEST"),
        ({"temperature": 10**400}, "temperature", "INVALID_REQUEST"),
        ({"top_p": 0}, "top_p", "INVALID_REQUEST"),
        ({"seed": 2**70}, "seed", "INVALID_REQUEST"),
        ({"seed": 1.5}, "seed", "INVALID_REQUEST"),
        ({"stop": ""}, "stop", "INVALID_REQUEST"),
        ({"stop": list("abcde")}, "stop", "INVALID_REQUEST"),
        ({"max_tokens": 0}, "max_tokens", "INVALID_REQUEST"),
        ({"max_completion_tokens": -1}, "max_completion_tokens", "INVALID_REQUEST"),
        ({"kvwire": {"hue": 1}}, "kvwire.hue", "INVALID_REQUEST"),
        ({"kvwire": {"kind": "none"}}, "kvwire.kind", "INVALID_REQUEST"),
        ({"model": "kvwire/a", "kvwire": {"document": "b"}}, "kvwire.document", "INVALID_REQUEST"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(
    api: Api, server: RunningServer, more: dict[str, Any], param: str, code: str
) -> None:
    status, told, _ = api.call({"model": "kvwire", "messages": ASKED} | more, path=PATH)
    assert (status, told["error"]["param"], told["error"]["code"]) == (400, param, code)
    assert told["error"]["type"] == "invalid_request_error" and param in told["error"]["message"]
    assert not server.service.requests


LEAF = (
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats()
    | strategies.text()
)
JSON = (
    LEAF
    | strategies.lists(LEAF | strategies.lists(LEAF, max_size=2), max_size=3)
    | strategies.dictionaries(strategies.text(), LEAF | strategies.lists(LEAF, max_size=2), max_size=3)
)
TURN = strategies.fixed_dictionaries(
    {"role": strategies.sampled_from(["user", "system", "assistant", "tool"]) | JSON},
    optional={
        "content": JSON | strategies.lists(strategies.fixed_dictionaries({"type": JSON, "text": JSON}))
    },
)
KEYS = [field.name for field in dataclasses.fields(ChatBody)] + ["tools", "n", "user", "response_format"]


@settings(deadline=None, database=None)
@given(
    strategies.dictionaries(strategies.sampled_from(KEYS), JSON), strategies.lists(TURN, max_size=2) | JSON
)
def test_whatever_the_body_it_is_read_or_refused(body: dict[str, Any], messages: Any) -> None:
    for value in (
        body,
        {"model": "kvwire", "messages": messages},
        {"model": "kvwire", "messages": ASKED} | body,
    ):
        with contextlib.suppress(InvalidRequest):
            assert (ChatBody.parse(value).ask(512).question or "").strip()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "INVALID_REQUEST"),
        ([], 400, "INVALID_REQUEST"),
        (
            b'{"model": "kvwire", "messages": [{"role": "user", "content": "\\ud800"}]}',
            400,
            "INVALID_REQUEST",
        ),
        ({"model": "gpt-4o", "messages": ASKED}, 404, "model_not_found"),
        ({"model": "kvwire/nobody's", "messages": ASKED}, 404, "NOT_FOUND"),
        ({"model": "kvwire", "messages": [{"role": "user", "content": "x" * 9_000}]}, 413, "TOO_LARGE"),
        ({"model": "kvwire", "messages": [{"role": "user", "content": "x" * 30_000}]}, 413, "TOO_LARGE"),
    ],
)
def test_a_wrong_call_has_a_code_and_a_fitting_status(api: Api, body: object, status: int, code: str) -> None:
    found, told, _ = api.call(body, path=PATH)
    assert (found, told["error"]["code"]) == (status, code)
    assert {"message", "type", "param", "code"} <= set(told["error"])


def test_a_key_is_asked_for_where_keys_are_configured(assistant: Assistant, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("first-key\n\n  second-key \n", encoding="utf-8")
    with serving_api(assistant, keys_file=str(path)) as api:
        for key in ("first-key", "second-key"):
            with client_of(api, key=key) as client:
                assert client.models.list().data
        for key in ("first-key ", "first", "first-key\tsecond-key", "é"):
            status, told, _ = api.call(None, "GET", "/v1/models", Authorization=f"Bearer {key}x")
            assert (status, told["error"]["code"]) == (401, "invalid_api_key")
        with client_of(api, key="third-key") as client, pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="kvwire", messages=ASKED)
        assert api.call({"question": QUESTION})[0] == 401
        assert api.call(None, "GET", "/healthz")[0] == 200
    for content in (None, "\n \n"):
        path.unlink() if content is None else path.write_text(content, encoding="utf-8")
        with pytest.raises(BadConfig, match=r"api\.keys_file"), serving_api(assistant, keys_file=str(path)):
            pass


def held(parts: Iterable[Part]) -> list[Part | float]:
    """A slice that does not come."""
    return [*list(parts)[:1], 60.0]


def received(caller: socket.socket, until: bytes) -> bytes:
    told = b""
    while until not in told:
        more = caller.recv(65_536)
        assert more, told
        told += more
    return told


def test_a_stream_that_waits_for_its_turn_is_kept_alive_and_one_that_leaves_frees_its_place(
    api: Api, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_node.reply._KEEP_ALIVE_S", 0.1)
    server.service.tamper = held
    extra = {"document": "note-1", "deadline_s": 50.0}
    body = {"model": "kvwire", "messages": ASKED, "stream": True, "kvwire": extra}
    first = api.begin(body, path=PATH)
    wait_until(lambda: bool(server.service.requests))
    server.service.tamper = lambda parts: parts
    second = api.begin(body, path=PATH)
    told = received(second, b": waiting\n\n")
    assert told.startswith(b"HTTP/1.1 200 ") and b"data:" not in told
    status, refused, headers = api.call(body, path=PATH)
    assert (status, refused["error"]["code"]) == (503, "BUSY") and int(headers["retry-after"]) >= 1
    first.close()
    told += received(second, b"data: [DONE]\n\n")
    assert b'"finish_reason": "length"' in told
    second.close()
    assert len(server.service.requests) == 2


def test_no_answer_after_a_wait_is_an_error_of_the_stream(
    api: Api, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_node.reply._KEEP_ALIVE_S", 0.1)
    server.service.tamper = held
    first = api.begin({"question": QUESTION, "document": "note-1", "deadline_s": 50.0})
    wait_until(lambda: bool(server.service.requests))
    server.service.failures.append(InternalError())
    second = api.begin({"model": "kvwire/note-1", "messages": ASKED, "stream": True}, path=PATH)
    told = received(second, b": waiting\n\n")
    first.close()
    told += received(second, b'"INTERNAL"')
    assert b"choices" not in told and b'data: {"error": ' in told
    second.close()


def test_the_examples_of_the_page_work_as_they_stand(
    api: Api, assistant: Assistant, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        (ROOT / "docs" / "api.md")
        .read_text(encoding="utf-8")
        .replace("localhost:7480", f"127.0.0.1:{api.port}")
    )
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "api.md", "exec"), names)
    names["client"].close()
    expected = assistant.ask("Where is the spare key?", document="note-1")
    first, second = capsys.readouterr().out.splitlines()
    assert (first, second.split()[0]) == (expected.text, "fused")
    if shutil.which("curl") is None:
        return
    (command,) = re.findall(r"^    (curl .*\n      .*)$", text, re.MULTILINE)
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(run.stdout)["choices"][0]["message"]["content"] == expected.text


def test_curl_gets_an_answer_on_both_loopback_addresses(assistant: Assistant) -> None:
    from edge_node.api import make_app
    from edge_node.config import ApiConfig
    from edge_node.serve import _listening, make_server

    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    sockets = _listening("localhost", 0)
    server = make_server(make_app(assistant, ApiConfig()))
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
    thread.start()
    wait_until(lambda: server.started)
    try:
        for each in sockets:
            host = "[::1]" if each.family is socket.AF_INET6 else "127.0.0.1"
            body = json.dumps({"model": "kvwire/note-1", "messages": ASKED})
            url = f"http://{host}:{each.getsockname()[1]}/v1/chat/completions"
            command = [
                "curl",
                "--noproxy",
                "*",
                "-sS",
                url,
                "-H",
                "Content-Type: application/json",
                "-d",
                body,
            ]
            run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
            told = json.loads(run.stdout)
            assert told["usage"]["kvwire"]["source"] == "fused", told
    finally:
        server.should_exit = True
        thread.join(20)
