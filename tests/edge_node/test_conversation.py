"""Questions that follow each other: what the cloud is told of those before, and what never leaves."""

import dataclasses
from typing import Any

import pytest

from edge_node import Ask, Assistant, AsyncAssistant, EdgeConfig
from edge_node.history import MOST_CHARS, ChatTurn
from fuser.receiver import Receiver
from kvwire.errors import InternalError, InvalidRequest
from kvwire.messages import Found
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from tests.edge_node.local_api import Api
from tests.edge_node.sharer_server import RunningServer

QUESTIONS = [f"Who keeps key {number}, and where is it?" for number in range(10)]
FIRST, SECOND = ChatTurn("Who keeps the key?", "Ilse."), ChatTurn("Where?", "Under a stone.")
HEAD = "Earlier questions and answers:\n"
ONE = "Question: Who keeps the key?\nAnswer: Ilse."
OTHER = "Question: Where?\nAnswer: Under a stone."
BOTH = f"{HEAD}{ONE}\n{OTHER}"
ALONE = f"{HEAD}Question: {FIRST.question}"
FOLLOWING = "And since when?"


def draft(question: str, **more: Any) -> Ask:
    return Ask(question, document="note-1", kind=SliceKind.DRAFT, **more)


def asked_of(server: RunningServer) -> list[str | None]:
    """What the cloud was asked last, section by section."""
    return [section.text for section in server.service.requests[-1].sections]


def read_by(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> list[list[str | None]]:
    """What the Receiver reads from now on, prompt by prompt."""
    seen: list[list[str | None]] = []
    begin = receiver.begin

    def noting(*prompts: Any) -> Any:
        seen.extend([section.text for section in prompt] for prompt in prompts)
        return begin(*prompts)

    monkeypatch.setattr(receiver, "begin", noting)
    return seen


def configured(assistant: Assistant, **share: Any) -> Assistant:
    config = dataclasses.replace(assistant.config, share=dataclasses.replace(assistant.config.share, **share))
    return Assistant(config, assistant.receiver, assistant.client)


@pytest.mark.parametrize("kind", [SliceKind.EXCERPT, SliceKind.DRAFT])
def test_ten_turns_answer_as_each_does_with_its_history_asked_anew(
    assistant: Assistant, server: RunningServer, kind: SliceKind
) -> None:
    history: list[ChatTurn] = []
    with assistant.conversation("note-1", kind=kind) as talk:
        for question in QUESTIONS:
            answer = talk.ask(question)
            asked = asked_of(server)
            anew = assistant.ask(Ask(question, document="note-1", kind=kind, history=history))
            assert asked_of(server) == asked and asked[-1] == question
            assert (answer.text, answer.positions) == (anew.text, anew.positions)
            sent = min(3, len(history)) if kind is SliceKind.DRAFT else 0
            assert answer.turns_sent == anew.turns_sent == sent
            assert "".join(text or "" for text in asked).count("Question: ") == sent
            history.append(ChatTurn(question, answer.text))
            assert talk.history == tuple(history)
    assert not talk.history


def test_the_cloud_reads_the_last_turns_and_the_receiver_the_question_alone(
    assistant: Assistant, server: RunningServer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = read_by(receiver, monkeypatch)
    ask = draft(FOLLOWING, history=[FIRST, SECOND])
    assert assistant.ask(ask).turns_sent == 2 and asked_of(server) == [None, BOTH, FOLLOWING]
    assert seen == [[None, FOLLOWING]]
    assert configured(assistant, history_turns=1).ask(ask).turns_sent == 1
    assert asked_of(server) == [None, f"{HEAD}{OTHER}", FOLLOWING]
    long = ChatTurn("x" * MOST_CHARS, "An answer that is too much.")
    assert assistant.ask(dataclasses.replace(ask, history=[FIRST, long, SECOND])).turns_sent == 1


def test_history_that_may_not_be_sent_is_read_at_the_edge_alone_and_never_for_what_a_slice_does_not_hold(
    assistant: Assistant, server: RunningServer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = read_by(receiver, monkeypatch)
    kept = "A note.\n\nUser: Who keeps the key?\nAssistant: Ilse."
    ask = draft(FOLLOWING, notes="A note.", history=[FIRST])
    assert configured(assistant, history_turns=0).ask(ask).turns_sent == 0
    assert asked_of(server) == [None, FOLLOWING] and seen[-1] == [None, "A note.", FOLLOWING]
    alone = assistant.ask(dataclasses.replace(ask, source="receiver-only"))
    assert alone.turns_sent == alone.bytes_sent == 0 and seen[-1] == [None, kept, FOLLOWING]
    for other, read in (
        (dataclasses.replace(ask, document=None, kind=None), kept),
        (dataclasses.replace(ask, kind=SliceKind.SHARED), "A note."),
        (dataclasses.replace(ask, kind=SliceKind.EXCERPT), "A note."),
    ):
        assert assistant.ask(other).turns_sent == 0 and asked_of(server)[-1] == FOLLOWING
        assert read in seen[-1]


@pytest.mark.parametrize(
    "beside",
    [
        {"notes": "The canary sings."},
        {"sections": [Section(Role.SYSTEM, Visibility.EDGE, text="You are a canary.")]},
    ],
)
def test_an_answer_that_may_quote_what_stays_at_the_edge_stays_there(
    assistant: Assistant, server: RunningServer, beside: Any
) -> None:
    assistant.ask(draft(FOLLOWING, history=[FIRST], **beside))
    assert asked_of(server) == [None, ALONE, FOLLOWING]
    talk = assistant.conversation("note-1", kind="draft")
    talk.ask(draft(FIRST.question, **beside))
    (turn,) = talk.history
    assert turn.stays == "answer" and turn.answer
    talk.ask(FOLLOWING)
    assert asked_of(server) == [None, ALONE, FOLLOWING]


def test_a_turn_that_the_cloud_was_not_asked_in_is_not_told_later(
    assistant: Assistant, server: RunningServer
) -> None:
    with assistant.conversation("note-1", kind="draft") as talk:
        talk.ask(Ask("What do I owe?", source="receiver-only"))
        talk.ask(FIRST.question)
        assert asked_of(server) == [None, FIRST.question]
        assert [turn.stays for turn in talk.history] == ["all", "nothing"]


def test_a_question_without_an_answer_is_no_turn_and_neither_is_one_that_was_stopped(
    assistant: Assistant, server: RunningServer
) -> None:
    with assistant.conversation("note-1", max_new_tokens=4) as talk:
        server.service.failures.append(InternalError())
        assert not talk.ask("Who?").answered and not talk.history
        with talk.stream("Who else?") as stream:
            next(stream)
        assert not talk.history
        talk.ask("Where?")
        assert [turn.question for turn in talk.history] == ["Where?"]
        with pytest.raises(InvalidRequest, match="its own history"):
            talk.ask(Ask("Where?", history=[FIRST]))
    with pytest.raises(InvalidRequest):
        assistant.conversation("note-1", max_bytes=-1)


def test_a_relayed_answer_knows_the_history(assistant: Assistant, server: RunningServer) -> None:
    relaying = configured(assistant, relay=True)
    answer = relaying.ask(draft(FOLLOWING, history=[FIRST, SECOND], max_bytes=40))
    assert (answer.source, answer.turns_sent) == ("relayed", 2)
    assert [section.text for section in server.service.relays[-1].sections] == [None, BOTH, FOLLOWING]


def test_a_search_for_a_follow_up_has_the_words_of_the_turns_before(
    assistant: Assistant, server: RunningServer
) -> None:
    server.service.finds = (Found("note-1", 1, 0.5),)
    answer = assistant.ask(Ask(FOLLOWING, kind=SliceKind.DRAFT, search=1, history=[FIRST]))
    assert [one.question for one in server.service.searches] == [f"{ONE}\n{FOLLOWING}"]
    assert answer.turns_sent == 1 and asked_of(server) == [None, f"{HEAD}{ONE}", FOLLOWING]


async def test_a_conversation_blocks_no_event_loop(assistant: Assistant, server: RunningServer) -> None:
    async with AsyncAssistant(assistant).conversation("note-1", kind="draft") as talk:
        first = await talk.ask(FIRST.question)
        async with talk.stream(FOLLOWING) as stream:
            assert "".join([piece async for piece in stream]) == stream.answer.text
        assert [turn.answer for turn in talk.history] == [first.text, stream.answer.text]
    assert (asked_of(server)[1] or "").endswith(f"Answer: {first.text}") and not talk.history


def test_the_local_api_takes_turns(api: Api, server: RunningServer) -> None:
    turns = [{"question": FIRST.question, "answer": FIRST.answer}, dataclasses.asdict(SECOND)]
    status, answer, _ = api.call(
        {"question": FOLLOWING, "document": "note-1", "kind": "draft", "history": turns}
    )
    assert (status, answer["turns_sent"], asked_of(server)) == (200, 2, [None, BOTH, FOLLOWING])
    status, told, _ = api.call({"question": FOLLOWING, "history": [{"answer": "Ilse."}]})
    assert (status, told["error"]["param"]) == (400, "history[0].question")


def test_the_number_of_turns_is_configured(config: EdgeConfig) -> None:
    with pytest.raises(ValueError, match="history_turns"):
        dataclasses.replace(config.share, history_turns=-1)
