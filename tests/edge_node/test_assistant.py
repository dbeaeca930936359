"""The assistant: fused where a slice came, the Receiver alone where not, and never silent about it."""

import dataclasses
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_node import Ask, Assistant, EdgeConfig
from edge_node.answer import explained
from edge_node.channel import read_capture
from edge_node.client import Client
from fuser import Sampling
from fuser.bundle.bundle import BadBundle, Bundle
from fuser.bundle.config import ConfidenceConfig
from fuser.config import BadConfig
from fuser.models.directory import ModelError, NoSuchDevice
from fuser.prompts.choice import ChoiceItem, choice_prompt
from fuser.prompts.prompt import RECEIVER_HOLDS, render, tokenise
from fuser.receiver import Begun, Prefilled, Receiver
from kvwire.errors import (
    AccessDenied,
    BadHeader,
    Busy,
    Cancelled,
    Draining,
    IncompatiblePeer,
    InternalError,
    InvalidRequest,
    KvwireError,
    NotFound,
    TooLarge,
    Unsupported,
)
from kvwire.section import Role, Section, Visibility
from kvwire.segment import UNTOLD, SliceHeader, SliceKind, SliceTrailer
from kvwire.slice_io import Frame
from ops.chaos.in_one_process import LocalAnswer, answer_in_one_process, first_line
from ops.talk import told_of
from tests.edge_node.sharer_server import (
    DOCUMENTS,
    Part,
    RunningServer,
    SliceService,
    reading,
    wait_until,
)
from tests.edge_node.toml import write_toml
from tests.greedy import greedy
from tests.process import python

QUESTION = "Who keeps the spare key? 谁有钥匙 ✅"


def in_one_process(
    service: SliceService,
    receiver: Receiver,
    sections: tuple[Section, ...],
    kind: SliceKind,
    tokens: int = 8,
) -> LocalAnswer:
    """The same answer without a wire."""
    return answer_in_one_process(service.sharer, receiver, sections, DOCUMENTS, kind, 8, tokens)


def sections_of(question: str, document: str | None = None, notes: str | None = None) -> tuple[Section, ...]:
    found = []
    if document is not None:
        found.append(Section(Role.DOCUMENT, Visibility.CLOUD, document_id=document))
    if notes is not None:
        found.append(Section(Role.DOCUMENT, Visibility.EDGE, text=notes))
    return (*found, Section(Role.QUESTION, Visibility.SHARED, text=question))


def receiver_alone(receiver: Receiver, question: str, tokens: int) -> str:
    return "".join(receiver.begin(sections_of(question)).prefill(None).generate(tokens))


@pytest.mark.parametrize("document", ["note-1", "note-2"])
def test_an_excerpt_answers_as_in_one_process(
    assistant: Assistant, slice_service: SliceService, receiver: Receiver, document: str
) -> None:
    answer = assistant.ask(QUESTION, document=document)
    local = in_one_process(slice_service, receiver, sections_of(QUESTION, document), SliceKind.EXCERPT)
    assert answer.text == first_line(local.text) != ""
    assert answer.tokens <= len(local.prefilled.tokens)
    assert (answer.source, answer.reason, answer.kind) == ("fused", None, "excerpt")
    assert answer.document == document and answer.codec == "raw"
    assert answer.positions == 8 and answer.share_arrived == 1.0


def test_an_answer_says_that_the_receiver_abstained_where_its_bundle_taught_it_how(
    assistant: Assistant, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.hash  # noqa: B018 (kept, so that both sides still speak of one bundle)
    said = assistant.ask(QUESTION, document="note-1")
    assert said.text.strip() and not said.abstained  # it was taught nothing
    monkeypatch.setattr(bundle, "config", dataclasses.replace(bundle.config, abstain=said.text.strip()))
    monkeypatch.setattr(assistant.receiver, "bundle", bundle)
    answer = assistant.ask(QUESTION, document="note-1")
    assert (answer.abstained, answer.answered, answer.least_confidence) == (True, True, None)
    assert "no answer: the Receiver does not find it" in told_of(answer)
    assert not assistant.ask("What is the boat called?", document="note-2").abstained
    assert not assistant.ask(Ask(QUESTION, source="receiver-only")).abstained


@pytest.fixture
def withholding(
    bundle: Bundle, assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> Callable[[float], None]:
    """Has the bundle abstain with "not stated" where an answer is less likely to be right than said here: all are
    about 0.73 likely."""
    bundle.hash  # noqa: B018 (kept, so that both sides still speak of one bundle)

    def under(value: float) -> None:
        told = {"excerpt": ConfidenceConfig({"mean": 1e-3}, 1.0, value)}
        config = dataclasses.replace(bundle.config, abstain="not stated", confidence=told)
        monkeypatch.setattr(bundle, "config", config)
        monkeypatch.setattr(assistant.receiver, "bundle", bundle)

    return under


def test_an_answer_says_how_likely_it_is_right_where_its_bundle_tells(
    assistant: Assistant, withholding: Callable[[float], None]
) -> None:
    assert assistant.ask(QUESTION, document="note-1").confidence is None
    withholding(0.0)
    plain = assistant.ask(QUESTION, document="note-1")
    assert plain.confidence == pytest.approx(0.73, abs=0.01) and not plain.abstained
    assert plain.least_confidence == 0.0
    assert assistant.ask(Ask(QUESTION, source="receiver-only")).confidence is None
    assert assistant.ask(Ask(QUESTION, document="note-1", choices=["a", "b"])).confidence is None
    assert json.loads(plain.to_json())["confidence"] == plain.confidence


def test_how_likely_the_sharer_finds_its_own_answer_counts(
    assistant: Assistant,
    server: RunningServer,
    withholding: Callable[[float], None],
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    withholding(0.0)
    told = {"draft": ConfidenceConfig({"sharer": 1.0}, 0.0)}
    asked = Ask(QUESTION, document="note-1", kind=SliceKind.DRAFT)
    monkeypatch.setattr(bundle, "config", dataclasses.replace(bundle.config, confidence=told))
    found = assistant.ask(asked).confidence
    assert found is not None and 0 < found < 0.5  # a random Sharer finds nothing likely
    server.service.tamper = lambda parts: [
        dataclasses.replace(part, certainty=UNTOLD) if isinstance(part, SliceTrailer) else part
        for part in parts
    ]  # of a cloud that does not tell
    assert assistant.ask(asked).confidence is None


def test_an_answer_that_is_too_unlikely_to_be_right_is_withheld_and_nothing_of_it_is_given(
    assistant: Assistant, withholding: Callable[[float], None]
) -> None:
    withholding(0.0)
    plain = assistant.ask(QUESTION, document="note-1")
    withholding(0.9)
    stream = assistant.stream(QUESTION, document="note-1")
    assert list(stream) == ["not stated"]
    answer = stream.answer
    assert (answer.text, answer.abstained, answer.source) == ("not stated", True, "fused")
    assert answer.confidence == pytest.approx(plain.confidence, abs=1e-3)  # of what is not given
    assert answer.least_confidence == 0.9
    told = told_of(answer)
    assert f"withheld as its confidence of {answer.confidence:.3f} is below 0.9" in told
    assert "--least-confidence 0" in told and "does not find" not in told  # the Receiver had an answer
    asked = assistant.ask(Ask(QUESTION, document="note-1", least_confidence=0.5))
    assert (asked.text, asked.abstained) == (plain.text, False)
    withholding(0.0)
    assert assistant.ask(Ask(QUESTION, document="note-1", least_confidence=0.9)).abstained


def test_notes_are_read_where_an_answer_is_withheld(
    assistant: Assistant, withholding: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    withholding(0.9)
    monkeypatch.setattr("edge_node.saying._stands_in", lambda answer, given: True)
    answer = assistant.ask(Ask(QUESTION, document="note-1", notes="The key hangs behind the clock."))
    assert (answer.source, answer.reason, answer.abstained) == ("receiver-only", "NOTES", False)
    assert answer.confidence is None and answer.text != "not stated"


def test_a_least_confidence_is_refused_where_the_bundle_tells_none(
    assistant: Assistant,
) -> None:
    with pytest.raises(InvalidRequest, match="least_confidence"):
        assistant.ask(Ask(QUESTION, document="note-1", least_confidence=0.5))
    with pytest.raises(InvalidRequest, match="0 to 1"):
        Ask(QUESTION, document="note-1", least_confidence=1.5)


def test_notes_are_read_where_the_receiver_abstains_behind_the_slice_and_only_there(
    assistant: Assistant,
    receiver: Receiver,
    slice_service: SliceService,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes = "The key hangs behind the clock."
    bundle.hash  # noqa: B018 (kept, so that both sides still speak of one bundle)
    local = in_one_process(slice_service, receiver, sections_of(QUESTION, "note-1"), SliceKind.EXCERPT)
    ids = local.prefilled.tokens
    end = next(token for at, token in enumerate(ids) if at > 2 and token not in ids[:at])
    monkeypatch.setattr(receiver, "stops", frozenset({end}))  # random models never stop else
    plain = assistant.ask(QUESTION, document="note-1")
    beside = assistant.ask(Ask(QUESTION, document="note-1", notes=notes))  # it was not taught to abstain
    assert (beside.source, beside.reason) == ("fused", None) and beside.prompt_tokens > plain.prompt_tokens

    def taught(abstain: str) -> None:
        monkeypatch.setattr(bundle, "config", dataclasses.replace(bundle.config, abstain=abstain))
        monkeypatch.setattr(assistant.receiver, "bundle", bundle)

    taught("what it never says")
    apart = assistant.ask(Ask(QUESTION, document="note-1", notes=notes))
    assert (apart.text, apart.source, apart.reason) == (plain.text, "fused", None)
    taught(plain.text)
    made_up = assistant.ask(
        Ask(QUESTION, document="note-1", notes=notes)
    )  # a random model says nothing of the notes
    assert (made_up.source, made_up.reason, made_up.abstained) == ("fused", None, True)
    monkeypatch.setattr("edge_node.saying._stands_in", lambda answer, given: given == [notes])
    answer = assistant.ask(Ask(QUESTION, document="note-1", notes=notes))
    begun = receiver.begin(sections_of(QUESTION, "note-1", notes))
    assert answer.text == first_line("".join(begun.prefill(None).generate(8)))
    assert (answer.source, answer.reason, answer.positions) == ("receiver-only", "NOTES", plain.positions)
    assert answer.answered and not answer.abstained and answer.prompt_tokens > plain.prompt_tokens
    strict = assistant.ask(Ask(QUESTION, document="note-1", notes=notes, require_fused=True))
    assert (strict.source, strict.text, strict.reason) == ("fused", beside.text, None)


@pytest.mark.parametrize("limits", [{"max_new_tokens": 1}, {"stop": ("in",)}, {}])
@pytest.mark.parametrize(("behind", "abstains"), [("not in it", True), ("not in here", False)])
def test_no_limit_of_the_caller_hides_whether_the_receiver_abstains(
    assistant: Assistant,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, Any],
    behind: str,
    abstains: bool,
) -> None:
    bundle.hash  # noqa: B018 (kept, so that both sides still speak of one bundle)
    monkeypatch.setattr(bundle, "config", dataclasses.replace(bundle.config, abstain="not in it"))
    monkeypatch.setattr(assistant.receiver, "bundle", bundle)

    def generate(prefilled: Prefilled, max_new_tokens: int, *_: Any) -> Iterator[str]:
        said = "clock tower" if prefilled.kind is None else behind
        for token, word in enumerate(said.split()[:max_new_tokens]):
            prefilled.tokens.append(token)
            yield f" {word}"

    monkeypatch.setattr(Prefilled, "generate", generate)
    answer = assistant.ask(Ask(QUESTION, document="note-1", notes="It hangs in the clock tower.", **limits))
    most = limits.get("max_new_tokens", 8)
    words = ("clock tower" if abstains else behind.partition(limits.get("stop", (";",))[0])[0]).split()[:most]
    assert (answer.text, answer.reason) == (" ".join(words), "NOTES" if abstains else None)
    assert answer.cut == (most == 1)
    if abstains:
        assert answer.tokens == 3 + len(words)


def test_a_shared_slice_answers_as_in_one_process_with_notes_that_stay(
    assistant: Assistant, slice_service: SliceService, receiver: Receiver, server: RunningServer
) -> None:
    notes = "The key hangs behind the clock. ✅"
    answer = assistant.ask(Ask(QUESTION, notes=notes))
    local = in_one_process(slice_service, receiver, sections_of(QUESTION, notes=notes), SliceKind.SHARED)
    assert answer.text == first_line(local.text) and answer.source == "fused" and answer.kind == "shared"
    assert all(section.text == QUESTION for section in server.service.requests[0].sections)


def test_a_question_with_choices_is_asked_in_the_words_that_bundles_are_trained_on(
    assistant: Assistant, server: RunningServer
) -> None:
    item = ChoiceItem("one", "Who keeps the key?", ("Ilse", "the miller", "nobody"), 0)
    answer = assistant.ask(Ask(item.question, choices=item.choices))
    (section,) = server.service.requests[-1].sections
    assert (section.text, answer.source, answer.kind) == (choice_prompt(item), "fused", "shared")


def test_over_a_document_the_likeliest_choice_is_picked_and_the_choices_stay_at_the_edge(
    assistant: Assistant, slice_service: SliceService, receiver: Receiver, server: RunningServer
) -> None:
    choices = ("nobody", "Ilse", "the miller")
    answer = assistant.ask(Ask(QUESTION, document="note-1", choices=choices))
    local = in_one_process(
        slice_service, receiver, sections_of(QUESTION, "note-1"), SliceKind.EXCERPT, tokens=0
    )
    likely = local.prefilled.likelihoods(choices)
    assert answer.choice == likely.index(max(likely)) and answer.text == choices[answer.choice]
    assert (answer.source, answer.kind, answer.tokens) == ("fused", "excerpt", 0)
    assert [s.text for s in server.service.requests[-1].sections] == [None, QUESTION]


def test_choices_over_a_document_that_cannot_be_compared_are_refused_before_the_cloud_is_asked(
    assistant: Assistant, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(error: type[KvwireError], said: str, *choices: str) -> None:
        with pytest.raises(error, match=said):
            assistant.ask(Ask(QUESTION, document="note-1", choices=choices))
        assert not server.service.requests

    refused(InvalidRequest, "the choice is not Unicode at character 2", "Ilse", "ab\ud800c")
    refused(TooLarge, "Receiver prompt positions", "Ilse", "behind the clock " * 1_500)
    monkeypatch.setattr(assistant.receiver.model.config, "final_logit_softcapping", 30.0, raising=False)
    refused(Unsupported, "choices over a document, for a model with final_logit", "Ilse", "the miller")


def test_a_shared_slice_beside_a_cloud_document(
    assistant: Assistant, slice_service: SliceService, receiver: Receiver
) -> None:
    answer = assistant.ask(Ask(QUESTION, document="note-1", kind="shared"))  # or its name
    sections = sections_of(QUESTION, "note-1")
    assert answer.text == first_line(in_one_process(slice_service, receiver, sections, SliceKind.SHARED).text)
    assert answer.kind == "shared"


@pytest.mark.parametrize(
    ("heads", "document", "kind"),
    [
        ({"fuse", "translate"}, "note-1", SliceKind.EXCERPT),
        ({"fuse"}, "note-1", None),
        ({"fuse"}, None, SliceKind.SHARED),
        ({"fuse", "translate"}, None, SliceKind.SHARED),
        ({"translate"}, None, None),
    ],
)
def test_the_kind_asked_for_is_the_best_that_the_bundle_makes_of_the_prompt(
    assistant: Assistant, bundle: Bundle, heads: set[str], document: str | None, kind: SliceKind | None
) -> None:
    missing = {name: None for name in ("fuse", "translate") if name not in heads}
    kept = {name: getattr(bundle, name) for name in heads}
    fewer = Bundle(dataclasses.replace(bundle.config, **missing), **kept)
    receiver = Receiver(assistant.receiver.model, assistant.receiver.tokenizer, fewer)
    chosen = Assistant(assistant.config, receiver, assistant.client)
    assert chosen._kind(Ask(QUESTION, document=document))[0] is kind
    fewer.config = dataclasses.replace(fewer.config, usual="draft")
    if (
        kind is SliceKind.EXCERPT
    ):  # a bundle may answer better from drafts; what is configured goes before that
        assert chosen._kind(Ask(QUESTION, document=document))[0] is SliceKind.DRAFT
        told = dataclasses.replace(assistant.config.share, kind="excerpt")
        told = Assistant(dataclasses.replace(assistant.config, share=told), receiver, assistant.client)
        assert told._kind(Ask(QUESTION, document=document))[0] is SliceKind.EXCERPT
    if SliceKind.EXCERPT not in fewer.kinds:
        with pytest.raises(InvalidRequest, match="takes no excerpt slices in"):
            chosen.ask(Ask(QUESTION, document=document, kind=SliceKind.EXCERPT))


def test_a_prompt_beyond_the_receivers_window_is_refused_before_anything_is_sent(
    assistant: Assistant, server: RunningServer
) -> None:
    notes = "The key hangs behind the clock. " * 1_500
    for source in ("auto", "receiver-only"):
        with pytest.raises(TooLarge) as refused:
            assistant.ask(Ask(QUESTION, notes=notes, source=source))  # type: ignore[arg-type]
        assert (refused.value.what, refused.value.limit) == ("Receiver prompt positions", 4096)
        assert refused.value.size > 4096
    assert not server.service.requests


def test_an_answer_accounts_for_bytes_and_seconds(assistant: Assistant) -> None:
    answer = assistant.ask(Ask(QUESTION, document="note-1", max_new_tokens=3))
    assert answer.tokens <= 3 and 0 < answer.payload_bytes < answer.bytes_received
    assert answer.payload_bytes == 8 * 24 * 4 and answer.bytes_sent > 0
    assert answer.timings["cloud_prefill"] == 0.25 and answer.timings["cloud_encode"] == 0.125
    steps = ("receiver_prefill", "wait", "fuse", "generate")
    assert all(answer.timings[step] > 0 for step in (*steps, "decode"))
    assert sum(answer.timings[step] for step in steps) <= answer.timings["total"]
    assert 0 < answer.timings["slice"] <= answer.time_to_first_token_s <= answer.timings["total"]
    assert json.loads(answer.to_json())["text"] == answer.text


def test_a_stream_gives_the_text_in_pieces_and_the_answer_at_its_end(assistant: Assistant) -> None:
    stream = assistant.stream(QUESTION, document="note-1")
    with pytest.raises(RuntimeError):
        _ = stream.answer
    pieces = list(stream)
    assert "".join(pieces) == stream.answer.text == assistant.ask(QUESTION, document="note-1").text


def test_two_streams_may_take_turns(assistant: Assistant) -> None:
    alone = [assistant.ask(QUESTION, document=name).text for name in ("note-1", "note-2")]
    first, second = (assistant.stream(QUESTION, document=name) for name in ("note-1", "note-2"))
    pieces: list[list[str]] = [[], []]
    for _ in range(9):
        for number, stream in enumerate((first, second)):
            pieces[number] += [piece for piece in (next(stream, None),) if piece is not None]
    assert ["".join(piece) for piece in pieces] == alone


def test_threads_may_ask_at_once(assistant: Assistant) -> None:
    names = ["note-1", "note-2"] * 3
    alone = {name: assistant.ask(QUESTION, document=name).text for name in set(names)}
    found: list[tuple[str, str]] = []

    def ask(name: str) -> None:
        found.append((name, assistant.ask(QUESTION, document=name).text))

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and all(alone[name] == text for name, text in found)


def test_the_receiver_prefills_while_the_slice_is_on_its_way(
    assistant: Assistant, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fuser.receiver import Begun, Prefilled

    arrived, prefilled = threading.Event(), threading.Event()
    prefill = Begun.prefill

    def waits_for_the_request(begun: Begun, kind: SliceKind | None) -> Prefilled:
        assert arrived.wait(10), "the request left only after the prefill"
        found = prefill(begun, kind)
        prefilled.set()
        return found

    def waits_for_the_prefill(parts: Iterable[Part]) -> Iterable[Part]:
        arrived.set()
        return parts

    monkeypatch.setattr(Begun, "prefill", waits_for_the_request)
    server.service.tamper = waits_for_the_prefill
    assert assistant.ask(QUESTION, document="note-1").source == "fused"
    assert prefilled.is_set()


@pytest.mark.parametrize(
    ("text", "abstains"),
    [("it is not stated.", True), ("not stated", True), ("not stated by whom", False)],
)
def test_an_abstention_in_a_sentence_is_one(
    assistant: Assistant, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, text: str, abstains: bool
) -> None:
    bundle.hash  # noqa: B018 (kept, so that both sides still speak of one bundle)
    monkeypatch.setattr(bundle, "config", dataclasses.replace(bundle.config, abstain="not stated"))
    monkeypatch.setattr(assistant.receiver, "bundle", bundle)
    monkeypatch.setattr(Prefilled, "generate", lambda *_: iter(text.splitlines(keepends=True)))
    answer = assistant.ask(QUESTION, document="note-1")
    assert (answer.text, answer.abstained, answer.source) == (text, abstains, "fused")


def test_without_a_cloud_a_question_about_a_document_is_not_answered_and_nothing_is_generated(
    cut_off: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Prefilled, "generate", lambda *_: pytest.fail("the Receiver generates a guess"))
    answer = cut_off.ask(QUESTION, document="note-1")
    assert (answer.answered, answer.text, answer.tokens) == (False, "", 0)
    assert (answer.source, answer.reason) == ("receiver-only", "UNREACHABLE")
    assert (answer.positions, answer.bytes_received, answer.share_arrived) == (0, 0, 0.0)
    assert json.loads(answer.to_json())["answered"] is False
    named = cut_off.ask(Ask(None, sections=sections_of(QUESTION, "note-1")))
    assert (named.answered, named.text) == (False, "")


def test_a_guess_is_made_only_where_it_is_asked_for(cut_off: Assistant, receiver: Receiver) -> None:
    guess = cut_off.ask(Ask(QUESTION, document="note-1", guess=True))
    assert (guess.answered, guess.source, guess.reason) == (True, "receiver-only", "UNREACHABLE")
    assert guess.text == first_line(receiver_alone(receiver, QUESTION, 8)) != ""
    wanted = cut_off.ask(Ask(QUESTION, document="note-1", source="receiver-only"))
    assert (wanted.answered, wanted.text, wanted.reason) == (True, guess.text, "REQUESTED")
    shared = cut_off.ask(QUESTION)  # the Receiver holds all of this prompt
    assert (shared.answered, shared.text, shared.reason) == (True, guess.text, "UNREACHABLE")


def test_an_answer_says_whether_the_receiver_had_nothing_to_read(
    assistant: Assistant, cut_off: Assistant
) -> None:
    noted = Ask(QUESTION, notes="Ilse keeps the spare key.")
    over = dataclasses.replace(noted, document="note-1", guess=True)  # notes are not the document
    talk = cut_off.conversation()
    guesses = [talk.ask(QUESTION), talk.ask(QUESTION), cut_off.ask(over)]
    guesses += [
        assistant.ask(Ask(QUESTION, document=one, source="receiver-only")) for one in (None, "note-1")
    ]
    others = [cut_off.ask(noted), cut_off.ask(Ask(QUESTION, document="note-1"))]
    others += [assistant.ask(Ask(QUESTION, document=one)) for one in (None, "note-1")]
    others += [assistant.ask(Ask(QUESTION, document="note-1", source="relayed"))]
    assert [answer.guess for answer in guesses + others] == [True] * 5 + [False] * 5


def test_the_sharers_own_words_come_as_text_where_they_are_asked_for(
    assistant: Assistant, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.service, "relay_text", "Behind the clock.")
    answer = assistant.ask(Ask(QUESTION, document="note-1", source="relayed"))
    assert (answer.text, answer.source, answer.reason) == ("Behind the clock.", "relayed", "REQUESTED")
    assert (answer.kind, answer.positions, answer.payload_bytes) == (None, 0, 0)
    assert answer.documents[0]["version"] == "0" * 32
    alone = assistant.ask(Ask(QUESTION, document="note-1", source="receiver-only"))
    assert alone.documents[0]["version"] is None, "nothing came that is of any"
    with pytest.raises(InvalidRequest, match="leave kind, plan and choices out"):
        Ask(QUESTION, document="note-1", source="relayed", kind=SliceKind.DRAFT)


def test_without_a_cloud_nobody_relays_and_the_receiver_does_not_answer_in_its_place(
    cut_off: Assistant,
) -> None:
    for document in ("note-1", None):
        answer = cut_off.ask(Ask(QUESTION, document=document, source="relayed"))
        assert (answer.answered, answer.text, answer.reason) == (False, "", "UNREACHABLE")


def test_where_a_fused_answer_is_required_there_is_no_other(assistant: Assistant, cut_off: Assistant) -> None:
    for document in (None, "note-1"):
        assert assistant.ask(Ask(QUESTION, document=document, require_fused=True)).source == "fused"
        answer = cut_off.ask(Ask(QUESTION, document=document, require_fused=True))
        assert (answer.answered, answer.text, answer.reason) == (False, "", "UNREACHABLE")
    for other in ({"guess": True}, {"source": "receiver-only"}):
        with pytest.raises(InvalidRequest, match="a fused answer is required"):
            assistant.ask(Ask(QUESTION, require_fused=True, **other))  # type: ignore[arg-type]


def test_an_empty_slice_of_a_document_is_no_answer(assistant: Assistant, receiver: Receiver) -> None:
    for required in (False, True):
        answer = assistant.ask(Ask(QUESTION, document="empty", require_fused=required))
        assert (answer.answered, answer.text, answer.source) == (False, "", "receiver-only")
        assert (answer.reason, answer.positions) == ("EMPTY", 0)
        assert "the document" in explained(answer, "here:1")
    guess = assistant.ask(Ask(QUESTION, document="empty", guess=True))
    assert (guess.answered, guess.source, guess.reason) == (True, "receiver-only", "EMPTY")
    assert guess.text == first_line(receiver_alone(receiver, QUESTION, 8))


def test_of_a_document_a_bundle_for_shared_slices_alone_asks_for_none(
    assistant: Assistant, bundle: Bundle, server: RunningServer
) -> None:
    fewer = Bundle(dataclasses.replace(bundle.config, translate=None), fuse=bundle.fuse)
    receiver = Receiver(assistant.receiver.model, assistant.receiver.tokenizer, fewer)
    chosen = Assistant(assistant.config, receiver, assistant.client)
    answer = chosen.ask(QUESTION, document="note-1")
    assert (answer.answered, answer.text, answer.reason) == (False, "", "NOTHING_TO_SHARE")
    assert "no slices of documents" in explained(answer, "here:1")
    nothing_named = explained(dataclasses.replace(answer, document=None), "here:1")
    assert "`--document ID`" in nothing_named and "`--search 3`" in nothing_named
    guess = chosen.ask(Ask(QUESTION, document="note-1", guess=True))
    assert (guess.answered, guess.source, guess.reason) == (True, "receiver-only", "NOTHING_TO_SHARE")
    assert not server.service.requests


FORKED = """
import os, signal, threading
from edge_node import Ask, Assistant
from fuser.receiver import Begun

assistant = Assistant.from_config("edge.toml")
begun, stay, prefill = threading.Event(), threading.Event(), Begun.prefill

def slow(prompt, kind):
    begun.set()
    stay.wait()
    return prefill(prompt, kind)

Begun.prefill = slow
unshared = Ask("Who keeps the key?", source="receiver-only")
early = assistant.stream(unshared)
thread = threading.Thread(target=assistant.ask, args=(unshared,))
thread.start()
begun.wait()
if os.fork() == 0:
    signal.alarm(20)
    plain = lambda **how: lambda: assistant.ask(Ask("Who keeps the key?", **how))
    document = {"document": "note-1"}
    alone, guess = plain(source="receiver-only"), plain(**document, guess=True)
    for ask in (plain(), alone, plain(**document), guess, early.__next__):
        try:
            ask()
        except RuntimeError as error:
            print(error, flush=True)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
stay.set()
thread.join()
assistant.close()
"""


def test_an_assistant_in_a_forked_child_says_so_though_the_receiver_was_at_work(
    config: EdgeConfig, tmp_path: Path
) -> None:
    write_toml(config, tmp_path / "edge.toml")
    ended = python("-c", FORKED, cwd=tmp_path)
    *told, status = ended.stdout.splitlines()
    assert status == "7" and ended.returncode == 0, ended.stderr
    assert len(told) == 5 and all("an assistant was made before" in line for line in told)


@pytest.mark.parametrize("question", ["", " ", "\n\u3000\t"])
def test_a_blank_question_is_none(assistant: Assistant, server: RunningServer, question: str) -> None:
    blank = Section(Role.QUESTION, Visibility.SHARED, text=question)
    for wrong in (
        {"question": question},
        {"question": question, "document": "note-1"},
        {"question": question, "choices": ("one", "two")},
        {"question": None, "sections": (blank,)},
        {"question": question, "sections": sections_of(QUESTION)},
    ):
        with pytest.raises(InvalidRequest, match="there is no question"):
            assistant.stream(Ask(**wrong))  # type: ignore[arg-type]
    assert not server.service.requests


def test_what_is_asked_is_one_object_checked_where_it_is_made(assistant: Assistant) -> None:
    ask = Ask(QUESTION, document="note-1", kind="excerpt", choices=["Ilse", "the miller"])  # type: ignore[arg-type]
    assert (ask.kind, ask.choices) == (SliceKind.EXCERPT, ("Ilse", "the miller"))
    assert dataclasses.replace(ask, choices=()) == Ask.of(
        Ask(QUESTION, document="note-1", kind=SliceKind.EXCERPT)
    )
    assert dataclasses.replace(ask, kind=None, choices=()) == Ask.of(QUESTION, "note-1")
    for wrong in (
        {"kind": "nonsense"},
        {"choices": "ab"},
        {"stop": "ab"},
        {"choices": ("one",)},
        {"document": ""},
    ):
        with pytest.raises(InvalidRequest):
            Ask(QUESTION, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="belongs into the Ask"):
        assistant.stream(ask, "note-2")


@pytest.mark.parametrize("what", ["question", "notes", "document"])
def test_half_a_surrogate_pair_is_refused(assistant: Assistant, what: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is not Unicode at character 2"):
        assistant.stream(Ask(**{"question": QUESTION, what: "ab\ud800c"}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "pieces", [[" \n", " 90 ", " ", "km", " \n", "\n## License"], ["\n90  km\n"], ["90  km"]]
)
@pytest.mark.parametrize("document", [None, "note-1"])
def test_an_answer_ends_with_its_first_line(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch, pieces: list[str], document: str | None
) -> None:
    said: list[str] = []

    def generate(prefilled: Prefilled, max_new_tokens: int, *_: Any) -> Iterator[str]:
        for piece in pieces:
            said.append(piece)
            yield piece

    monkeypatch.setattr(Prefilled, "generate", generate)
    stream = assistant.stream(QUESTION, document=document)
    given = list(stream)
    assert "".join(given) == stream.answer.text == "90  km"
    assert all(piece == piece.rstrip() for piece in given)
    assert "\n## License" not in said  # nothing is generated in vain
    alone = assistant.ask(Ask(QUESTION, source="receiver-only"))
    assert alone.text == "90  km"


def test_a_stop_string_ends_the_answer_and_what_a_limit_cut_says_so(assistant: Assistant) -> None:
    whole = assistant.ask(QUESTION, document="note-1")
    assert (whole.cut, whole.tokens) == (True, 8) and whole.prompt_tokens > 0
    letter = whole.text[len(whole.text) // 2]
    ended = assistant.ask(Ask(QUESTION, document="note-1", stop=("nowhere", letter)))
    assert ended.text == whole.text.partition(letter)[0].rstrip()
    assert not ended.cut and ended.tokens <= whole.tokens
    with pytest.raises(InvalidRequest, match="stop"):
        assistant.stream(Ask(QUESTION, stop=("",)))


def test_an_answer_may_be_drawn_and_a_seed_draws_it_again(assistant: Assistant) -> None:
    def said(temperature: float, seed: int | None = None) -> str:
        sampling = Sampling(temperature, seed=seed)
        return assistant.ask(Ask(QUESTION, document="note-1", sampling=sampling)).text

    assert said(0.0, seed=3) == assistant.ask(QUESTION, document="note-1").text
    assert said(2.0, seed=3) == said(2.0, seed=3) != said(2.0, seed=4)


def test_the_receiver_alone_is_transformers_own_greedy_answer(
    assistant: Assistant, receiver: Receiver, bundle: Bundle, server: RunningServer
) -> None:
    """With no learnt prefix before the question, that is: here the prompt's own tokens are compared."""
    bare = Receiver(
        receiver.model,
        receiver.tokenizer,
        Bundle(dataclasses.replace(bundle.config, translate=None), bundle.fuse),
    )
    alone = Assistant(assistant.config, bare, assistant.client)
    answer = alone.ask(Ask(QUESTION, source="receiver-only"))
    prompt = render(sections_of(QUESTION), bundle.config.receiver_prompt, RECEIVER_HOLDS)
    ids = tokenise(receiver.tokenizer, prompt).ids
    generated = receiver.model.generate(
        input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], max_new_tokens=8, do_sample=False
    )[0, len(ids) :]
    assert answer.text == first_line(receiver.tokenizer.decode(generated, skip_special_tokens=True)) != ""
    raw = greedy(receiver.model, receiver.tokenizer, ids, max_new_tokens=8)
    assert answer.text == first_line(raw)
    assert answer.reason == "REQUESTED" and not server.service.requests


def _corrupt(parts: Iterable[Part]) -> Iterable[Part]:
    *rest, summary = parts
    frame = rest[-1]
    assert isinstance(frame, Frame)
    return [*rest[:-1], dataclasses.replace(frame, data=frame.data[:-1] + b"\xff"), summary]


def _no_spans(parts: Iterable[Part]) -> Iterable[Part]:
    header, *rest = parts
    assert isinstance(header, SliceHeader)
    empty = tuple(dataclasses.replace(s, shape=(s.shape[0], 0, s.shape[2])) for s in header.specs)
    return [dataclasses.replace(header, specs=empty, spans=(), tail=0), *rest]


@pytest.mark.parametrize(
    ("tamper", "kind", "reason"),
    [
        (_corrupt, SliceKind.EXCERPT, "BAD_CHECKSUM"),
        (_corrupt, SliceKind.SHARED, "BAD_CHECKSUM"),
        (lambda parts: list(parts)[:-1], SliceKind.EXCERPT, "BAD_PAYLOAD"),
        (lambda parts: list(parts)[:-1], SliceKind.SHARED, "BAD_PAYLOAD"),
        (_no_spans, SliceKind.SHARED, "BAD_PAYLOAD"),
        (lambda parts: [*list(parts)[:3], 30.0], SliceKind.SHARED, "DEADLINE_EXCEEDED"),
        (lambda parts: [30.0], SliceKind.EXCERPT, "DEADLINE_EXCEEDED"),
    ],
)
def test_a_bad_or_late_slice_is_never_fused(
    assistant: Assistant,
    receiver: Receiver,
    server: RunningServer,
    tamper: Callable[[Iterable[Part]], Iterable[Part]],
    kind: SliceKind,
    reason: str,
) -> None:
    server.service.tamper = tamper
    deadline_s = 0.5 if reason == "DEADLINE_EXCEEDED" else 20.0
    answer = assistant.ask(Ask(QUESTION, document="note-1", kind=kind, deadline_s=deadline_s))
    assert (answer.source, answer.reason, answer.positions) == ("receiver-only", reason, 0)
    assert (answer.answered, answer.text) == (False, "")
    guess = assistant.ask(Ask(QUESTION, document="note-1", kind=kind, deadline_s=deadline_s, guess=True))
    assert guess.reason == reason and guess.text == first_line(receiver_alone(receiver, QUESTION, 8))
    server.service.tamper = lambda parts: parts
    assert assistant.ask(Ask(QUESTION, document="note-1", kind=kind)).source == "fused"


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Busy(60.0), "BUSY"),
        (Draining(60.0), "DRAINING"),
        (InternalError(), "INTERNAL"),
        (BadHeader(), "BAD_HEADER"),
    ],
)
def test_a_cloud_that_cannot_serve_leaves_a_question_unanswered_for_its_reason(
    assistant: Assistant, server: RunningServer, failure: KvwireError, reason: str
) -> None:
    server.service.failures.append(failure)
    answer = assistant.ask(QUESTION, document="note-1")
    assert (answer.answered, answer.source, answer.reason) == (False, "receiver-only", reason)


@pytest.mark.parametrize(
    "failure",
    [
        NotFound(),
        AccessDenied(),
        InvalidRequest(),
        TooLarge("prompt tokens", 3, 2),
        IncompatiblePeer("bundle hash", "a", "b"),
    ],
)
def test_what_the_caller_must_mend_is_raised(
    assistant: Assistant, server: RunningServer, failure: KvwireError
) -> None:
    server.service.failures.append(failure)
    with pytest.raises(type(failure)):
        assistant.ask(QUESTION, document="note-1")


def test_a_wrong_call_is_refused_before_anything_is_sent(assistant: Assistant, server: RunningServer) -> None:
    for wrong in (
        {"question": None},
        {"question": QUESTION, "document": ""},
        {"question": QUESTION, "max_new_tokens": 0},
        {"question": QUESTION, "choices": ("one",)},
        {"question": None, "sections": sections_of(QUESTION), "choices": ("one", "two")},
        {"question": "x" * 100_000},
    ):
        with pytest.raises((InvalidRequest, TooLarge)):
            assistant.ask(Ask(**wrong))  # type: ignore[arg-type]
    assert not server.service.requests


def test_closing_a_stream_cancels_the_slice(assistant: Assistant, server: RunningServer) -> None:
    server.service.tamper = lambda parts: [*list(parts)[:2], 30.0]
    stream = assistant.stream(QUESTION, document="note-1")
    thread = threading.Thread(target=lambda: next(stream, None))
    thread.start()
    wait_until(lambda: bool(server.service.requests))
    assistant.close()  # from another thread: the stream ends with a reason, not with a hang
    thread.join(20)
    assert not thread.is_alive()
    wait_until(server.service.cancelled.is_set)


@pytest.mark.parametrize("where", ["it waits for the slice", "the Receiver prefills"])
def test_a_stream_may_be_closed_from_another_thread_whatever_it_does(
    assistant: Assistant, server: RunningServer, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    prefilling, go_on = threading.Event(), threading.Event()
    prefill = Begun.prefill

    def slow(begun: Begun, kind: SliceKind | None) -> Prefilled:
        prefilling.set()
        assert go_on.wait(20)
        return prefill(begun, kind)

    if where == "the Receiver prefills":
        monkeypatch.setattr(Begun, "prefill", slow)
    monkeypatch.setattr(Prefilled, "generate", lambda *_: pytest.fail("it goes on"))
    server.service.tamper = lambda parts: [*list(parts)[:2], 30.0]
    stream = assistant.stream(Ask(QUESTION, document="note-1", guess=True))
    with reading(stream) as raised:
        wait_until(lambda: bool(server.service.requests))
        if where == "the Receiver prefills":
            assert prefilling.wait(20)
        stream.close()
        wait_until(server.service.cancelled.is_set, 5)  # while the Receiver is still at it
        go_on.set()
    assert [type(error) for error in raised] == [Cancelled]
    stream.close()
    assert next(stream, None) is None


def test_notes_are_in_no_message(config: EdgeConfig, receiver: Receiver, tmp_path: Path) -> None:
    capture = tmp_path / "wire.bin"
    config = dataclasses.replace(config, capture=str(capture))
    notes = "zanzibar-4711 图钉 🌋"
    with Assistant(config, receiver, Client(config)) as assistant:
        for document in (None, "note-1"):
            assert assistant.ask(Ask(QUESTION, document=document, notes=notes)).source == "fused"
    wire = b"\n".join(captured.message for captured in read_capture(capture))
    assert QUESTION.encode() in wire
    for canary in ("zanzibar", "4711", "图钉", "🌋"):
        assert canary.encode() not in wire


def test_a_bundle_for_another_receiver_is_refused(config: EdgeConfig, tiny_sharer: Path) -> None:
    wrong = dataclasses.replace(config, receiver=dataclasses.replace(config.receiver, model=str(tiny_sharer)))
    with pytest.raises(BadBundle, match="is for the Receiver"):
        Assistant.from_config(wrong)


@pytest.mark.parametrize(
    ("wanted", "error", "said"),
    [
        ({"device": "cuda"}, NoSuchDevice, "device cuda is not there"),
        ({"dtype": "float16"}, ValueError, "float16 needs a GPU"),
    ],
)
def test_a_device_that_is_not_there_and_half_precision_without_a_gpu_are_refused_by_name(
    config: EdgeConfig,
    monkeypatch: pytest.MonkeyPatch,
    wanted: dict[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    wrong = dataclasses.replace(config, receiver=dataclasses.replace(config.receiver, **wanted))
    with pytest.raises(error, match=said):
        Assistant.from_config(wrong)


@pytest.mark.parametrize(
    ("table", "key", "value", "error"),
    [
        ("tls", "certificate", "gone.pem", BadConfig),
        ("receiver", "bundle", "gone", BadBundle),
        ("receiver", "model", "gone", ModelError),
        ("receiver", "device", "cuda", ModelError),
    ],
)
def test_what_a_configuration_names_in_vain_is_told_with_file_and_key(
    config: EdgeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    table: str,
    key: str,
    value: str,
    error: type[Exception],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    changed = dataclasses.replace(getattr(config, table), **{key: value})
    path = write_toml(dataclasses.replace(config, **{table: changed}), tmp_path / "edge.toml")
    with pytest.raises(error, match=rf"^{re.escape(str(path))}: {table}\.{key}: "):
        Assistant.from_config(path)
