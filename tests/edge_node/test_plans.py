"""Plans at the edge: a byte budget is never exceeded on the wire, a deadline is kept, and the answer says why."""

import asyncio
import dataclasses
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edge_node import Ask, Assistant, EdgeConfig
from edge_node.answer import NO_PLANS, explained
from edge_node.channel import Direction, read_capture
from edge_node.client import Client
from edge_node.picker import (
    BEST,
    BYTE_BUDGET,
    CONFIGURED,
    DEADLINE,
    NOT_GRANTED,
    NOT_USEFUL,
    REQUESTED,
    Picker,
)
from fuser.bundle.bundle import Bundle
from fuser.bundle.plans import BadTable, PlanRow, PlanTable
from fuser.receiver import Receiver
from kvwire.errors import Cancelled, InvalidRequest, RelayDisabled
from kvwire.plan import Granted, Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from kvwire.serde import description_to_proto
from ops.cli import app
from ops.talk import told_of
from tests.edge_node.sharer_server import RunningServer, SliceService, reading
from tests.edge_node.toml import write_toml
from tests.fuser.lab.profile.rows import row
from tests.kvwire.samples import payload_bytes_of

QUESTION = "Who keeps the spare key? 谁有钥匙 ✅"
SMALL, MIDDLE, LARGE = (
    Plan(codec="int8", positions=2, code_dim=6),
    Plan(codec="int8", positions=8, code_dim=12),
    Plan(codec="raw"),
)
MOST = {SMALL: 2 * 8, MIDDLE: 8 * 14, LARGE: 12 * 24 * 4}
TABLE = (
    row(SMALL, MOST[SMALL], 0.2),
    row(MIDDLE, MOST[MIDDLE], 0.4),
    row(LARGE, MOST[LARGE], 0.5),
    row(Plan(codec="int8", positions=1, code_dim=1), 3, 0.1, low=-0.1),
    row(Plan(codec="int8", last=2), 200, 0.3, kind=SliceKind.SHARED),
)
Make = Callable[..., Assistant]


@pytest.fixture
def make(config: EdgeConfig, receiver: Receiver, tmp_path: Path) -> Iterator[Make]:
    """Assistants with a table and a capture; keywords change `[share]`."""
    made: list[Assistant] = []

    def new(rows: tuple[PlanRow, ...] = TABLE, **share: Any) -> Assistant:
        settings = dataclasses.replace(
            config,
            share=dataclasses.replace(config.share, **share),
            capture=str(tmp_path / "wire.bin"),
        )
        table = PlanTable(receiver.bundle.hash, rows, {}) if rows else None
        made.append(Assistant(settings, receiver, Client(settings), table))
        return made[-1]

    yield new
    for assistant in made:
        assistant.close()


def payload_on_the_wire(capture: Path) -> int:
    """Bytes of segments among all that was received behind what the cloud offers."""
    received = [c.message for c in read_capture(capture) if c.direction is Direction.RECEIVED]
    return payload_bytes_of(received[1:])


@pytest.mark.parametrize("kind", [SliceKind.EXCERPT, SliceKind.SHARED])
@pytest.mark.parametrize("budget", [1, 15, 16, 100, 112, 500, 1_151, 1_152, 20_000])
def test_a_byte_budget_is_never_exceeded_on_the_wire(
    make: Make, server: RunningServer, tmp_path: Path, kind: SliceKind, budget: int
) -> None:
    assistant = make()
    answer = assistant.ask(Ask(QUESTION, document="note-1", kind=kind, max_bytes=budget))
    assert payload_on_the_wire(tmp_path / "wire.bin") == answer.payload_bytes <= budget
    assert all(request.max_bytes == budget for request in server.service.requests)
    if kind is SliceKind.EXCERPT:
        wanted = max((plan for plan in MOST if MOST[plan] <= budget), key=MOST.__getitem__, default=None)
        assert answer.plan == (wanted and dataclasses.asdict(wanted))
        assert answer.plan_reason == (BEST if wanted is LARGE else BYTE_BUDGET)
    if answer.plan is None:
        assert (answer.source, answer.reason, answer.kind) == ("receiver-only", "NO_PLAN", None)
        assert answer.bytes_sent == 0 and not server.service.requests


def test_of_budget_and_deadline_the_answer_names_the_one_that_decided(make: Make) -> None:
    assistant = make()
    known(assistant, 1e3)
    for budget, reason in ((1_151, BYTE_BUDGET), (1_152, DEADLINE)):
        answer = assistant.ask(Ask(QUESTION, document="note-1", max_bytes=budget, deadline_s=0.5))
        assert (answer.plan, answer.plan_reason) == (dataclasses.asdict(MIDDLE), reason)
        assert answer.payload_bytes == MOST[MIDDLE]
        allowed = "bytes" if reason == BYTE_BUDGET else "time"
        assert f", a smaller plan than the best, for the {allowed} allowed, " in told_of(answer)


def known(assistant: Assistant, rate: float) -> None:
    """Teach an assistant its link: this rate, 10 ms there and back, 0.1 s of work."""
    for _ in range(3):
        assistant.client.link.slice_came(100_000, 0.01, 0.1 + 1e5 / rate, 0.0, {"prefill": 0.1})


@pytest.mark.parametrize(
    ("rate", "plan", "reason"),
    [(1e6, LARGE, BEST), (1e3, MIDDLE, DEADLINE), (1e2, SMALL, DEADLINE), (10.0, None, DEADLINE)],
)
def test_a_deadline_picks_by_the_estimate_of_the_link(
    make: Make, server: RunningServer, rate: float, plan: Plan | None, reason: str
) -> None:
    assistant = make(plan="auto")
    known(assistant, rate)
    answer = assistant.ask(Ask(QUESTION, document="note-1", deadline_s=0.5))
    assert (answer.plan_reason, answer.plan) == (reason, plan and dataclasses.asdict(plan))
    assert bool(server.service.requests) is (plan is not None)
    assert answer.estimate is not None and answer.estimate["bandwidth_bytes_per_s"] == pytest.approx(rate)


def test_the_first_slice_is_the_best_one_too_and_measures_the_link(make: Make) -> None:
    assistant = make(plan="auto")
    first = assistant.ask(QUESTION, document="note-1")
    assert (first.plan, first.plan_reason) == (dataclasses.asdict(LARGE), BEST)
    assert first.estimate is not None and first.estimate["rtt_s"]
    assert first.estimate["bandwidth_bytes_per_s"] is first.estimate["cloud_s"] is None
    second = assistant.ask(QUESTION, document="note-1")
    assert second.estimate is not None and all(second.estimate.values())
    assert (second.plan, second.plan_reason) == (dataclasses.asdict(LARGE), BEST)


RUNS = Plan(codec="int8", positions=8, runs=2)


@pytest.mark.parametrize(
    ("granted", "plan", "reason"),
    [
        (Granted(max_positions=32, max_quoted=32, max_runs=2), RUNS, BEST),
        (Granted(max_positions=32, max_quoted=32, max_runs=1), LARGE, BEST),
        (Granted(max_positions=32, max_quoted=8, max_runs=2), RUNS, BEST),
        (Granted(max_positions=32, max_quoted=8, max_runs=1), MIDDLE, BEST),
        (Granted(max_positions=7, max_quoted=8, max_runs=1), SMALL, BEST),
        (Granted(max_positions=32, max_quoted=0, max_runs=1), None, NOT_GRANTED),
    ],
)
def test_no_plan_is_picked_that_the_clouds_policy_would_cut_or_refuse(
    make: Make,
    server: RunningServer,
    monkeypatch: pytest.MonkeyPatch,
    granted: Granted,
    plan: Plan | None,
    reason: str,
) -> None:
    offer = dataclasses.replace(server.service.description, granted=granted)
    monkeypatch.setattr(server.service, "description", offer)
    assistant = make((*TABLE, row(RUNS, 200, 0.6)), plan="auto")
    known(assistant, 1e6)
    answer = assistant.ask(QUESTION, document="note-1")
    assert (answer.plan, answer.plan_reason) == (plan and dataclasses.asdict(plan), reason)
    assert answer.answered is (plan is not None)


def test_the_policy_is_asked_for_once_a_connection_and_anew_of_a_cloud_that_was_restarted(
    make: Make, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer, told = server.service.description, list[Granted]()

    async def describe(service: SliceService, request: Any, context: Any) -> Any:
        told.append(service.description.granted)
        return description_to_proto(service.description)

    monkeypatch.setattr(SliceService, "Describe", describe)
    server.stop()
    server.start(server.port)  # with the method as it is now
    assistant = make(plan="auto")
    known(assistant, 1e6)
    for _ in range(2):
        assert assistant.ask(QUESTION, document="note-1").plan == dataclasses.asdict(LARGE)
    assert len(told) == 1
    tighter = dataclasses.replace(offer, granted=dataclasses.replace(offer.granted, max_quoted=8))
    monkeypatch.setattr(server.service, "description", tighter)
    server.stop()
    server.start(server.port)
    assert assistant.ask(QUESTION, document="note-1").plan == dataclasses.asdict(MIDDLE)
    assert len(told) == 2
    monkeypatch.undo()
    server.stop()
    server.start(server.port)


def test_a_cloud_that_is_away_when_a_plan_is_picked_is_the_reason(make: Make, server: RunningServer) -> None:
    assistant = make(plan="auto", deadline_s=1.0)
    server.stop()
    answer = assistant.ask(QUESTION, document="note-1")
    server.start(server.port)
    assert not answer.answered and answer.reason in ("UNREACHABLE", "DEADLINE_EXCEEDED")


def test_a_description_measures_the_round_trip(make: Make) -> None:
    assistant = make()
    assistant.client.describe()
    assert 0 < (assistant.client.link.estimate.rtt_s or 0) < 5


def test_without_budget_or_auto_the_configuration_is_obeyed(make: Make) -> None:
    answer = make().ask(QUESTION, document="note-1")
    assert answer.plan == dataclasses.asdict(Plan(codec="raw", positions=8))
    assert (answer.plan_reason, answer.codec) == (CONFIGURED, "raw")
    assert "plan" not in told_of(answer)  # there is nothing to be said of it
    alone = make().ask(Ask(QUESTION, document="note-1", source="receiver-only"))
    assert (alone.plan, alone.plan_reason, alone.estimate, alone.reason) == (None, None, None, "REQUESTED")


def test_without_a_table_a_budget_lets_the_configured_plan_through_or_none(make: Make) -> None:
    assistant = make(rows=())
    most = 8 * 24 * 4
    answer = assistant.ask(Ask(QUESTION, document="note-1", max_bytes=most))
    assert (answer.plan_reason, answer.payload_bytes) == (CONFIGURED, most)
    answer = assistant.ask(Ask(QUESTION, document="note-1", max_bytes=most - 1))
    assert (answer.plan_reason, answer.reason, answer.source) == (BYTE_BUDGET, "NO_PLAN", "receiver-only")


def test_a_budget_may_stand_in_the_configuration(make: Make) -> None:
    assistant = make(max_bytes=20)
    assert assistant.ask(QUESTION, document="note-1").plan == dataclasses.asdict(SMALL)
    assert assistant.ask(Ask(QUESTION, document="note-1", max_bytes=0)).plan_reason == CONFIGURED
    with pytest.raises(InvalidRequest, match="max_bytes is -1"):
        assistant.ask(Ask(QUESTION, document="note-1", max_bytes=-1))


def test_the_caller_may_name_the_plan(make: Make, server: RunningServer) -> None:
    plan = Plan(codec="int8", positions=3, padded=True)
    answer = make(plan="auto").ask(Ask(QUESTION, document="note-1", plan=plan))
    assert (answer.plan, answer.plan_reason) == (dataclasses.asdict(plan), REQUESTED)
    assert server.service.requests[0].plan == plan


def test_where_no_plan_is_of_use_the_sharers_own_answer_is_relayed_if_both_sides_allow_it(
    make: Make, server: RunningServer, tmp_path: Path
) -> None:
    useless = tuple(row(plan, MOST[plan], 0.1, low=-0.1) for plan in MOST)
    assistant = make(useless, plan="auto", relay=True)
    answer = assistant.ask(Ask(QUESTION, document="note-1", notes="Never sent.", max_new_tokens=5))
    assert (answer.source, answer.reason, answer.plan_reason) == ("relayed", "NO_PLAN", NOT_USEFUL)
    assert f"reason NO_PLAN, {NO_PLANS[NOT_USEFUL]}, " in told_of(answer)
    assert answer.text and answer.tokens > 0 and answer.payload_bytes == 0
    messages = list(read_capture(tmp_path / "wire.bin"))[2:]  # behind what the cloud offers
    sent = [c.message for c in messages if c.direction is Direction.SENT]
    assert answer.bytes_sent == sum(map(len, sent)) and b"Never sent" not in b"".join(sent)
    assert answer.bytes_received == sum(len(c.message) for c in messages) - answer.bytes_sent > 0
    server.service.failures.append(RelayDisabled())
    answer = assistant.ask(QUESTION, document="note-1")
    assert (answer.source, answer.reason) == ("receiver-only", "RELAY_DISABLED")
    assert answer.plan_reason == NOT_USEFUL
    assert not answer.answered and not answer.text
    alone = make(useless, plan="auto").ask(QUESTION, document="note-1")
    assert (alone.answered, alone.source, alone.reason) == (False, "receiver-only", "NO_PLAN")
    assert explained(alone, "here:1").endswith(NO_PLANS[NOT_USEFUL])
    strict = assistant.ask(Ask(QUESTION, document="note-1", require_fused=True))
    assert (strict.answered, strict.reason, strict.bytes_sent) == (False, "NO_PLAN", 0)


def test_without_a_document_and_a_slice_the_answer_is_relayed_too_and_the_command_still_shows_no_guess(
    config: EdgeConfig, server: RunningServer, receiver: Receiver, tmp_path: Path
) -> None:
    config = dataclasses.replace(config, share=dataclasses.replace(config.share, relay=True))
    ask = ["ask", QUESTION, "--max-bytes", "60", "--json", "--config"]
    ask.append(str(write_toml(config, tmp_path / "edge.toml")))
    done = CliRunner().invoke(app, ask)
    answer = json.loads(done.stdout)
    assert (done.exit_code, answer["source"], answer["reason"]) == (0, "relayed", "NO_PLAN")
    server.service.failures.append(RelayDisabled())
    done = CliRunner().invoke(app, ask)
    answer = json.loads(done.stdout)
    assert (done.exit_code, answer["answered"], answer["reason"]) == (3, False, "RELAY_DISABLED")
    fewer = Bundle(
        dataclasses.replace(receiver.bundle.config, fuse=None), translate=receiver.bundle.translate
    )
    with Assistant(config, Receiver(receiver.model, receiver.tokenizer, fewer), Client(config)) as of_drafts:
        answers = [of_drafts.ask(QUESTION), of_drafts.ask(Ask(QUESTION, require_fused=True))]
    assert [(a.source, a.reason) for a in answers] == [
        ("relayed", "NOTHING_TO_SHARE"),
        ("receiver-only", "NOTHING_TO_SHARE"),
    ]


def test_a_stream_that_waits_for_the_relay_may_be_closed_from_another_thread(
    make: Make, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, cancelled = threading.Event(), threading.Event()

    async def never(service: SliceService, request: Any, context: Any) -> Any:
        asked.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    monkeypatch.setattr(SliceService, "Relay", never)
    server.stop()
    server.start(server.port)  # with the method as it is now
    useless = tuple(row(plan, MOST[plan], 0.1, low=-0.1) for plan in MOST)
    stream = make(useless, plan="auto", relay=True).stream(Ask(QUESTION, document="note-1", guess=True))
    with reading(stream) as raised:
        assert asked.wait(20)
        stream.close()
        assert cancelled.wait(5)
    assert [type(error) for error in raised] == [Cancelled]
    monkeypatch.undo()
    server.stop()
    server.start(server.port)


def test_of_a_relayed_text_the_first_line_is_the_answer(
    make: Make, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.service, "relay_text", "\n Behind the clock. \nIs there more?")
    useless = tuple(row(plan, MOST[plan], 0.1, low=-0.1) for plan in MOST)
    stream = make(useless, plan="auto", relay=True).stream(QUESTION, document="note-1")
    assert list(stream) == [stream.answer.text] == ["Behind the clock."]


@pytest.mark.parametrize("said", ["", " \n\n"])
def test_a_relayed_text_that_is_empty_is_no_answer(
    make: Make, server: RunningServer, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(server.service, "relay_text", said)
    useless = tuple(row(plan, MOST[plan], 0.1, low=-0.1) for plan in MOST)
    assistant = make(useless, plan="auto", relay=True)
    answer = assistant.ask(QUESTION, document="note-1")
    assert (answer.answered, answer.text, answer.source) == (False, "", "receiver-only")
    assert (answer.reason, answer.plan_reason) == ("EMPTY", NOT_USEFUL) and answer.bytes_received > 0
    guess = assistant.ask(Ask(QUESTION, document="note-1", guess=True))
    assert (guess.answered, guess.source, guess.reason) == (True, "receiver-only", "EMPTY")


@pytest.mark.parametrize(
    ("said", "document", "choices", "choice"),
    [
        ("The correct answer is B.", None, 3, 1),
        ("C", None, 3, 2),
        ("C", None, 2, None),
        ("the miller", None, 3, None),
        ("B", None, 0, None),
        ("The miller.", "note-1", 3, 1),
        ("the millers", "note-1", 3, None),
        ("B", "note-1", 3, None),
        ("B", "note-1", 0, None),
    ],
)
def test_an_answer_tells_which_of_the_choices_it_names(
    make: Make,
    server: RunningServer,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    document: str | None,
    choices: int,
    choice: int | None,
) -> None:
    monkeypatch.setattr(server.service, "relay_text", said)
    kind = SliceKind.SHARED if document is None else SliceKind.EXCERPT
    plans = (Plan(codec="int8", last=2),) if document is None else MOST
    useless = tuple(row(plan, 200, 0.1, low=-0.1, kind=kind) for plan in plans)
    given = ("Ilse", "the miller", "nobody")[:choices]
    answer = make(useless, plan="auto", relay=True).ask(Ask(QUESTION, document=document, choices=given))
    assert (answer.source, answer.text, answer.choice) == ("relayed", said, choice)


def test_a_relayed_text_keeps_to_the_byte_budget_too(make: Make, server: RunningServer) -> None:
    assistant = make(plan="auto", relay=True)
    answer = assistant.ask(Ask(QUESTION, document="note-1", max_bytes=15))
    assert (answer.source, answer.plan_reason) == ("relayed", BYTE_BUDGET)
    assert len(answer.text.encode()) <= 15 and server.service.relays[0].max_bytes == 15
    server.service.relay_text, server.service.relay_most = "more than was asked for", 40
    answer = assistant.ask(Ask(QUESTION, document="note-1", max_bytes=15))
    assert (answer.source, answer.reason) == ("receiver-only", "BAD_PAYLOAD")


@pytest.mark.parametrize("last", [0, 3])
@pytest.mark.parametrize(
    "question", [QUESTION, "", "a", "图书馆在河边👩‍🔬" * 9, "key " * 50, "\n\n\t ÿ\u0000"]
)
def test_the_most_a_shared_slice_may_come_to_is_never_too_little(
    bundle: Bundle, config: EdgeConfig, slice_service: SliceService, question: str, last: int
) -> None:
    picker = Picker(bundle, config.share, None)
    sections = (
        Section(Role.SYSTEM, Visibility.SHARED, text="Be brief."),
        Section(Role.QUESTION, Visibility.SHARED, text=question),
    )
    for plan in (Plan(codec="raw", last=last), Plan(codec="int8", last=last, bottleneck=True, padded=True)):
        cut = slice_service.sharer.layout(sections, SliceKind.SHARED, 32, plan)
        longer = picker.most_bytes(plan, SliceKind.SHARED, sections)
        assert sum(spec.raw_bytes for spec in cut.specs) <= longer or plan.codec != "raw"
        assert cut.specs[0].positions <= picker._positions(plan, SliceKind.SHARED, sections)


def test_an_edge_reads_the_table_beside_its_bundle(
    config: EdgeConfig, tiny_bundle: Path, tmp_path: Path, bundle: Bundle
) -> None:
    directory = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    receiver = dataclasses.replace(config.receiver, bundle=str(directory))
    auto = dataclasses.replace(
        config, receiver=receiver, share=dataclasses.replace(config.share, plan="auto")
    )
    with pytest.raises(BadTable, match="kvwire profile"):
        Assistant.from_config(auto)
    PlanTable(bundle.hash, TABLE, {}).save(directory)
    with Assistant.from_config(write_toml(auto, tmp_path / "edge.toml")) as assistant:
        assert assistant.ask(QUESTION, document="note-1").plan_reason == BEST
    PlanTable("0" * 64, TABLE, {}).save(directory)
    with pytest.raises(BadTable, match="was measured with the bundle 0000"):
        Assistant.from_config(dataclasses.replace(config, receiver=receiver))
