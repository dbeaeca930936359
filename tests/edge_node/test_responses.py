"""OpenAI's newer call, by OpenAI's own client: the same answers as a completion, as a response and its events."""

from typing import Any

import openai
import pytest

from edge_node import Assistant
from kvwire.errors import DeadlineExceeded
from kvwire.section import Visibility
from tests.edge_node.local_api import Api
from tests.edge_node.sharer_server import RunningServer

QUESTION = "Who keeps the spare key?"
PATH = "/v1/responses"


def test_a_response_has_the_answer_and_where_it_came_from(
    client: openai.OpenAI, assistant: Assistant
) -> None:
    expected = assistant.ask(QUESTION, document="note-1")
    found = client.responses.create(
        model="kvwire", input=QUESTION, extra_body={"kvwire": {"document": "note-1"}}
    )
    assert (found.output_text, found.status) == (expected.text, "incomplete")
    assert found.incomplete_details is not None and found.incomplete_details.reason == "max_output_tokens"
    assert found.usage is not None and found.usage.output_tokens == expected.tokens
    account = found.usage.model_extra["kvwire"]  # type: ignore[index]
    assert (account["source"], account["document"], account["positions"]) == ("fused", "note-1", 8)
    letter = expected.text[len(expected.text) // 2]
    ended = client.responses.create(model="kvwire/note-1", input=QUESTION, extra_body={"stop": letter})
    assert (ended.status, ended.output_text) == ("completed", expected.text.partition(letter)[0].rstrip())


def test_its_events_come_in_order_and_end_with_the_whole(client: openai.OpenAI, assistant: Assistant) -> None:
    expected = assistant.ask(QUESTION, document="note-1").text
    with client.responses.create(model="kvwire/note-1", input=QUESTION, stream=True) as stream:
        events = list(stream)
    kinds = [event.type.removeprefix("response.") for event in events]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert kinds == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta" for _ in deltas),
        *("output_text.done", "content_part.done", "output_item.done", "incomplete"),
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(deltas) == expected == events[-1].response.output_text  # type: ignore[union-attr]
    letter = expected[len(expected) // 2]
    with client.responses.stream(
        model="kvwire/note-1", input=QUESTION, extra_body={"stop": letter}
    ) as helped:
        assert helped.get_final_response().output_text == expected.partition(letter)[0].rstrip()


def test_instructions_stay_here_and_of_earlier_turns_the_answers_beside_them(
    client: openai.OpenAI, assistant: Assistant, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    begin = assistant.receiver.begin
    monkeypatch.setattr(
        assistant.receiver, "begin", lambda sections: (seen.append(sections), begin(sections))[1]
    )
    first = client.responses.create(model="kvwire/note-1", input="Well?").output[0].model_dump()
    turns: list[Any] = [
        {"role": "user", "content": "Well?"},
        first,
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
    ]
    draft = {"kvwire": {"kind": "draft"}}
    client.responses.create(model="kvwire/note-1", instructions="Be brief.", input=turns, extra_body=draft)
    own = [section.text for section in seen[-1] if section.visibility is Visibility.EDGE]
    assert own == ["Be brief."]
    sent = [section.text for section in server.service.requests[-1].sections]
    assert sent == [None, "Earlier questions and answers:\nQuestion: Well?", QUESTION]
    client.responses.create(model="kvwire/note-1", input=turns, extra_body=draft)
    (_, told, _) = [section.text for section in server.service.requests[-1].sections]
    assert told == f"Earlier questions and answers:\nQuestion: Well?\nAnswer: {first['content'][0]['text']}"


@pytest.mark.parametrize("stream", [False, True])
def test_no_answer_is_an_error(client: openai.OpenAI, server: RunningServer, stream: bool) -> None:
    server.service.failures.append(DeadlineExceeded())
    with pytest.raises(openai.InternalServerError) as caught:
        client.responses.create(model="kvwire/note-1", input=QUESTION, stream=stream)
    assert (caught.value.status_code, caught.value.code) == (504, "DEADLINE_EXCEEDED")
    assert caught.value.body["kvwire"]["answered"] is False  # type: ignore[index]


def test_an_error_after_the_first_piece_is_an_event(client: openai.OpenAI, broken_stream: str) -> None:
    with pytest.raises(openai.APIError) as caught:
        list(client.responses.create(model="kvwire", input=QUESTION, stream=True))
    assert caught.value.code == "INTERNAL" and broken_stream not in str(caught.value.body)


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools", "unsupported_parameter"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
        ({"store": True}, "store", "unsupported_parameter"),
        ({"text": {"format": {"type": "json_object"}}}, "text", "unsupported_parameter"),
        ({"input": [{"type": "function_call_output"}]}, "input[0].type", "unsupported_value"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
            "unsupported_value",
        ),
        ({"input": " "}, "input", "INVALID_REQUEST"),
        ({"input": None}, "input", "INVALID_REQUEST"),
        ({"input": ["x"]}, "input", "INVALID_REQUEST"),
        ({"max_output_tokens": 0}, "max_output_tokens", "INVALID_REQUEST"),
        ({"hue": 1}, "hue", "INVALID_REQUEST"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(
    api: Api, more: dict[str, Any], param: str, code: str
) -> None:
    status, told, _ = api.call({"model": "kvwire", "input": QUESTION} | more, path=PATH)
    assert (status, told["error"]["param"], told["error"]["code"]) == (400, param, code)
