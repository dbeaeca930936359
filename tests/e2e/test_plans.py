"""Byte budgets against a real cloud node: what crosses the wire never exceeds them, whoever breaks the promise."""

import dataclasses
from pathlib import Path

import pytest

from edge_node import Ask, Assistant, Client, EdgeConfig
from edge_node.channel import Direction, read_capture
from edge_node.picker import BEST, BYTE_BUDGET
from fuser.bundle.plans import PlanTable
from fuser.receiver import Receiver
from kvwire.errors import TooLarge
from kvwire.plan import Plan
from kvwire.segment import SliceKind
from tests.e2e.conftest import CANARIES
from tests.e2e.prompts import DOCUMENTS
from tests.fuser.lab.profile.rows import row
from tests.kvwire.samples import payload_bytes_of

QUESTION = "Who keeps the spare key of the boat house?"
SMALL, LARGE = Plan(codec="int8", positions=3, code_dim=8), Plan(codec="lossless")
ROWS = (
    row(SMALL, 30, 0.2),
    row(LARGE, 1_200, 0.4),
    row(Plan(codec="int8", last=4, bottleneck=True), 400, 0.3, kind=SliceKind.SHARED),
    row(Plan(codec="int8"), 4_000, 0.4, kind=SliceKind.SHARED),
    row(Plan(codec="int8", positions=2, code_dim=8), 60, 0.3, kind=SliceKind.DRAFT),
    row(Plan(codec="int8", quoted=4), 1_000, 0.4, kind=SliceKind.DRAFT),
)


def arrived(capture: Path) -> int:
    """Payload bytes among all that was received."""
    _, *messages = [c.message for c in read_capture(capture) if c.direction is Direction.RECEIVED]
    return payload_bytes_of(messages)  # without what the cloud grants, which it is asked for first


@pytest.mark.parametrize("kind", SliceKind)
@pytest.mark.parametrize("budget", [20, 60, 600, 5_000])
def test_no_slice_exceeds_its_budget_and_the_answer_says_which_plan_and_why(
    captured_config: EdgeConfig, capture: Path, local_receiver: Receiver, kind: SliceKind, budget: int
) -> None:
    table = PlanTable(local_receiver.bundle.hash, ROWS, {})
    before = 0
    with Assistant(captured_config, local_receiver, Client(captured_config), table) as assistant:
        for document in [*CANARIES, *list(DOCUMENTS)[:3]]:
            answer = assistant.ask(Ask(QUESTION, document=document, kind=kind, max_bytes=budget))
            total = arrived(capture) if capture.exists() else 0
            assert answer.payload_bytes == total - before <= budget
            before = total
            if answer.plan is None:
                assert (answer.source, answer.reason) == ("receiver-only", "NO_PLAN")
                assert answer.plan_reason == BYTE_BUDGET
            else:
                assert answer.source == "fused" and answer.payload_bytes > 0
                named = {str(dataclasses.asdict(r.plan)) for r in ROWS if r.kind is kind}
                assert str(answer.plan) in named and answer.plan_reason in (BEST, BYTE_BUDGET)


def test_the_cloud_holds_the_cap_where_the_edge_does_not(
    captured_config: EdgeConfig, capture: Path, local_receiver: Receiver
) -> None:
    with Assistant(captured_config, local_receiver, Client(captured_config)) as assistant:
        with pytest.raises(TooLarge):  # the caller named a plan that may need more than it allows
            assistant.ask(Ask(QUESTION, document="secret-1", plan=LARGE, max_bytes=100))
        assert assistant.ask(Ask(QUESTION, document="secret-1", plan=SMALL, max_bytes=100)).source == "fused"
    messages = [c.message for c in read_capture(capture) if c.direction is Direction.RECEIVED]
    assert 0 < payload_bytes_of(messages) <= 100
