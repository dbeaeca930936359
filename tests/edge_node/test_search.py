"""A question that names no document, several documents, and passages: at the client, the assistant and the API."""

import json
from typing import Any

import pytest

from cloud_node.passages import passages
from edge_node import Ask, Assistant
from edge_node.client import AsyncClient
from fuser.receiver import Receiver
from kvwire.errors import (
    BadHeader,
    Busy,
    DeadlineExceeded,
    ExportDenied,
    InternalError,
    InvalidRequest,
    KvwireError,
    NotFound,
    TokenRefused,
    TooLarge,
    entry_of,
)
from kvwire.limits import MAX_TOKEN_CHARS
from kvwire.messages import Found
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from ops.chaos.in_one_process import answer_in_one_process, first_line
from tests.edge_node.local_api import Api
from tests.edge_node.sharer_server import DOCUMENTS, SliceService, reading, wait_until

QUESTION = "Who keeps the spare key?"
FIRST, SECOND = Found("note-1", 1, 0.7), Found("two", 2, 0.25)


def named(service: SliceService) -> list[tuple[str | None, int]]:
    """The documents and passages of the last request for a slice."""
    return [
        (section.document_id, section.passage)
        for section in service.requests[-1].sections
        if section.visibility is Visibility.CLOUD
    ]


async def test_a_search_says_where_the_words_stand(assistant: Assistant, slice_service: SliceService) -> None:
    slice_service.finds = (FIRST, SECOND)
    assert assistant.client.search(QUESTION, 2, deadline_s=5.0) == (FIRST, SECOND)
    async with AsyncClient(assistant.config) as client:
        assert await client.search(QUESTION) == (FIRST, SECOND)
    assert [(search.question, search.k) for search in slice_service.searches] == [
        (QUESTION, 2),
        (QUESTION, 3),
    ]


def test_a_search_that_would_be_refused_is_not_sent(
    assistant: Assistant, slice_service: SliceService
) -> None:
    limits = assistant.client.limits
    for question, k, error in (
        (" ", 1, InvalidRequest),
        (QUESTION, 0, InvalidRequest),
        (QUESTION, limits.max_found + 1, TooLarge),
        ("w" * (limits.max_question_chars + 1), 1, TooLarge),
    ):
        with pytest.raises(error):
            assistant.client.search(question, k)
    slice_service.finds = (FIRST, SECOND)
    with pytest.raises(BadHeader):  # more than were asked for
        assistant.client.search(QUESTION, 1)
    assert len(slice_service.searches) == 1


def test_the_passages_that_are_found_are_asked_about_and_named(
    assistant: Assistant, slice_service: SliceService, receiver: Receiver
) -> None:
    slice_service.finds = (FIRST, SECOND)
    answer = assistant.ask(Ask(QUESTION, search=2))
    assert named(slice_service) == [("note-1", 1), ("two", 2)]
    assert answer.document == "note-1" and answer.documents == (
        {"document": "note-1", "passage": 1, "score": 0.7, "version": f"{0:032x}"},
        {"document": "two", "passage": 2, "score": 0.25, "version": f"{1:032x}"},
    )
    assert json.loads(answer.to_json())["documents"][1]["passage"] == 2
    assert answer.source == "fused" and answer.kind == "excerpt" and answer.timings["search"] > 0
    sections = (
        *(Section(Role.DOCUMENT, Visibility.CLOUD, document_id=f.document) for f in (FIRST, SECOND)),
        Section(Role.QUESTION, Visibility.SHARED, text=QUESTION),
    )  # fmt: skip
    _, (begins, ends) = passages(DOCUMENTS["two"])
    texts = {"note-1": DOCUMENTS["note-1"], "two": DOCUMENTS["two"][begins:ends]}
    local = answer_in_one_process(slice_service.sharer, receiver, sections, texts, SliceKind.EXCERPT, 8, 8)
    assert answer.text == first_line(local.text)
    assert assistant.ask(Ask(QUESTION, document="note-1")).bytes_sent < answer.bytes_sent


def test_documents_and_passages_are_named_in_any_number_and_found_ones_only_added(
    assistant: Assistant, slice_service: SliceService
) -> None:
    answer = assistant.ask(Ask(QUESTION, document="note-2", documents=("two#2", FIRST)))
    assert named(slice_service) == [("note-2", 0), ("two", 2), ("note-1", 1)]
    assert [one["score"] for one in answer.documents] == [None, None, None]
    slice_service.finds = (Found("note-2", 1), SECOND, FIRST)
    answer = assistant.ask(Ask(QUESTION, document="note-2", documents=["two#2"], search=3))
    assert named(slice_service) == [("note-2", 0), ("two", 2), ("note-1", 1)], "not what is named already"
    assert answer.documents[2] == {"document": "note-1", "passage": 1, "score": 0.7, "version": f"{2:032x}"}


@pytest.mark.parametrize(
    "name",
    ["two#", "two#0", "two#-1", "two#x", "#1", "two#1#2", f"two#{2**32}", "two#" + "9" * 5_000, "two#\u0663"],
)
def test_a_passage_that_is_none_is_refused_where_it_is_named(name: str) -> None:
    with pytest.raises(InvalidRequest):
        Ask(QUESTION, documents=[name])
    with pytest.raises(InvalidRequest):
        Ask(QUESTION, search=-1)


def test_nothing_found_is_not_answered_and_says_so(assistant: Assistant, slice_service: SliceService) -> None:
    answer = assistant.ask(Ask(QUESTION, search=3))
    assert (answer.answered, answer.text, answer.reason) == (False, "", "NOTHING_FOUND")
    assert answer.documents == () and not slice_service.requests and answer.bytes_sent > 0
    guessed = assistant.ask(Ask(QUESTION, search=3, guess=True))
    assert guessed.answered and (guessed.source, guessed.reason) == ("receiver-only", "NOTHING_FOUND")
    beside = assistant.ask(Ask(QUESTION, document="note-1", search=3))
    assert beside.source == "fused" and named(slice_service) == [("note-1", 0)]
    alone = assistant.ask(Ask(QUESTION, search=3, source="receiver-only"))
    assert alone.answered and len(slice_service.searches) == 3, "nothing is searched for the Receiver alone"


@pytest.mark.parametrize("failure", [InternalError(), DeadlineExceeded()])
def test_a_search_that_fails_is_the_reason(
    assistant: Assistant, slice_service: SliceService, failure: KvwireError
) -> None:
    slice_service.failures = [failure]
    answer = assistant.ask(Ask(QUESTION, search=3))
    assert (answer.answered, answer.reason) == (False, entry_of(type(failure)).reason)
    assert not slice_service.requests


def test_a_busy_cloud_is_searched_again_and_a_search_that_is_denied_is_the_callers(
    assistant: Assistant, slice_service: SliceService
) -> None:
    slice_service.finds, slice_service.failures = (FIRST,), [Busy(0.01)]
    assert assistant.ask(Ask(QUESTION, search=1)).source == "fused"
    for error in (ExportDenied("where a question's words stand"), NotFound()):
        slice_service.failures = [error]
        with pytest.raises(type(error)):
            assistant.ask(Ask(QUESTION, search=1))


def test_search_and_slice_share_one_deadline(
    assistant: Assistant, slice_service: SliceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    slice_service.finds = (FIRST,)
    assistant.ask(Ask(QUESTION, search=1, deadline_s=8.0))
    (left,) = slice_service.remaining_s
    assert left is not None and left < 8.0
    search = assistant.client.search

    def slow(*given: Any) -> Any:
        stream._started -= 9.0
        return search(*given)

    monkeypatch.setattr(assistant.client, "search", slow)
    stream = assistant.stream(Ask(QUESTION, search=1, deadline_s=8.0))
    assert list(stream) == [] and stream.answer.reason == "DEADLINE_EXCEEDED"


def test_the_api_searches_and_asks_about_what_it_finds(api: Api, slice_service: SliceService) -> None:
    slice_service.finds = (FIRST, SECOND)
    status, told, _ = api.call(b"", "GET", "/v1/kvwire/search?q=Who%20keeps%20the%20key%3F&k=2")
    assert status == 200 and told["data"] == [
        {"document": "note-1", "passage": 1, "score": 0.7},
        {"document": "two", "passage": 2, "score": 0.25},
    ]
    assert slice_service.searches[-1].question == "Who keeps the key?"
    said = {"question": QUESTION, "documents": [told["data"][1], "note-2"], "search": 2}
    status, answer, _ = api.call(said)
    assert status == 200 and [one["document"] for one in answer["documents"]] == ["two", "note-2", "note-1"]
    body = {"model": "kvwire", "messages": [{"role": "user", "content": QUESTION}], "kvwire": {"search": 2}}
    status, completion, _ = api.call(body, "POST", "/v1/chat/completions")
    assert status == 200 and completion["usage"]["kvwire"]["documents"] == [
        one | {"version": f"{place:032x}"} for place, one in enumerate(told["data"])
    ]
    slice_service.finds = ()
    status, refused, _ = api.call(body, "POST", "/v1/chat/completions")
    assert (status, refused["error"]["code"]) == (422, "NOTHING_FOUND")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("?q=key&k=0", 400),
        ("?q=key&k=x", 400),
        ("?q=key&k=-1", 400),
        ("?q=key&k=99999999999999", 413),
        ("?q=%20", 400),
        ("", 400),
        ("?q=" + "w" * 9_000, 413),
    ],
)
def test_the_api_refuses_a_search_that_is_none(api: Api, path: str, status: int) -> None:
    assert api.call(b"", "GET", f"/v1/kvwire/search{path}")[0] == status


@pytest.mark.parametrize(
    "kvwire",
    [{"documents": "note-1"}, {"documents": [{"document": "a"}]}, {"documents": [7]}, {"search": "3"}],
)
def test_the_api_refuses_documents_that_are_none(api: Api, kvwire: dict[str, Any]) -> None:
    assert api.call({"question": QUESTION} | kvwire)[0] == 400


def test_more_passages_than_can_be_asked_for_are_the_callers_to_mend(api: Api) -> None:
    for count in (17, 2**32, 10**30):
        status, told, _ = api.call({"question": QUESTION, "search": count})
        assert (status, told["error"]["type"]) in (
            (400, "invalid_request_error"),
            (413, "invalid_request_error"),
        ), told


def test_a_search_under_way_is_given_up_when_the_stream_is_closed(
    assistant: Assistant, slice_service: SliceService
) -> None:
    slice_service.failures = [Busy(5.0)] * 9
    stream = assistant.stream(Ask(QUESTION, search=1))
    with reading(stream) as raised:
        wait_until(lambda: len(slice_service.failures) < 9)
        stream.close()
    assert [type(error).__name__ for error in raised] == ["Cancelled"]


def test_a_search_sends_no_word_of_a_question_for_the_edge_alone() -> None:
    own = Section(Role.QUESTION, Visibility.EDGE, text="Does Ilse know the code 4711?")
    shared = Section(Role.QUESTION, Visibility.SHARED, text="Where is the key?")
    assert Ask(sections=[shared, own], search=2).searched == "Where is the key?"
    with pytest.raises(InvalidRequest, match="edge alone"):
        Ask(sections=[own], search=2)


def test_a_source_that_is_none_is_refused_and_not_taken_for_another() -> None:
    with pytest.raises(InvalidRequest, match="source is one of auto, receiver-only, relayed"):
        Ask("Where?", source="receiver_only")  # type: ignore[arg-type]


def test_search_slice_and_relay_say_for_which_user_and_nothing_else_has_the_token(
    assistant: Assistant, api: Api, slice_service: SliceService
) -> None:
    slice_service.finds, slice_service.users = (FIRST,), []
    asked = Ask(QUESTION, search=1, user_token="aa.bb.cc")
    assert "aa.bb" not in repr(asked)
    assert assistant.ask(asked).source == "fused"
    assert assistant.ask(Ask(QUESTION, document="note-1", source="relayed", user_token="aa.bb.cc")).answered
    assert slice_service.users == [["Bearer aa.bb.cc"]] * 3
    shown = {"KVWire-User-Token": "dd.ee.ff"}
    assert api.call({"question": QUESTION, "document": "note-1"}, **shown)[0] == 200
    assert api.call(b"", "GET", "/v1/kvwire/search?q=key", **shown)[0] == 200
    assert api.call({"question": QUESTION, "document": "note-1"})[0] == 200
    assert slice_service.users[3:] == [["Bearer dd.ee.ff"]] * 2 + [[]]
    slice_service.failures = [TokenRefused()]
    status, refused, _ = api.call({"question": QUESTION, "document": "note-1"}, **shown)
    assert (status, refused["error"]["code"]) == (401, "TOKEN_REFUSED")
    question, before = {"question": QUESTION, "document": "note-1"}, len(slice_service.users)
    assert api.call(question, **{"KVWire-User-Token": "no token"})[0] == 400
    longer = {"KVWire-User-Token": "a" * (MAX_TOKEN_CHARS + 1)}
    status, refused, _ = api.call(question, **longer)
    assert (status, refused["error"]["code"]) == (413, "TOO_LARGE")
    assert refused["error"]["metadata"] == {
        "what": "user token characters",
        "size": "8193",
        "limit": "8192",
    }
    assert len(slice_service.users) == before
    assert api.call(question, **{"KVWire-User-Token": "a" * MAX_TOKEN_CHARS})[0] == 200
