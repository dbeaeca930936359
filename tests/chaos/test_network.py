"""Links, disks, databases and clocks that fail: every answer is its own, or says why, in time; then all is well."""

from pathlib import Path
from typing import Any

import pytest

from edge_node.stream import AnswerStream
from ops.chaos.asker import CheckedEdge
from ops.chaos.network import LINK, WORLD, Network, of_postgres
from ops.chaos.outcome import Ending
from ops.chaos.postgres import Postgres
from ops.chaos.trials import DOCUMENTS, PROMPTS
from ops.chaos.world import TinyWorld

ALL = len(LINK) + len(WORLD)


@pytest.mark.timeout(300)
def test_each_fault_once_and_every_answer_is_its_own_or_says_why_in_time(world: TinyWorld) -> None:
    network = Network(world, 11, lambda: None)
    network.run(range(ALL))
    told = network.tally.to_dict()
    assert told["violations"] == []
    assert set(told["rows"]) == {*LINK, *WORLD}
    assert told["all"]["recovery_s"]["n"] == ALL


def test_a_slow_and_a_dead_postgresql_end_every_answer_in_time_with_a_reason(
    postgres: Postgres, tmp_path: Path, world: TinyWorld
) -> None:
    faults = of_postgres(postgres)
    with TinyWorld(tmp_path, world.cast, postgres.new_store()) as lying_there:
        network = Network(lying_there, 15, lambda: None, "postgres", faults)
        network.run(range(len(faults)))
    told = network.tally.to_dict()
    assert told["violations"] == [] and set(told["rows"]) == set(faults)
    assert set(told["all"]["reasons"]) == {"DOCUMENTS_UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert told["rows"]["database killed"]["reasons"] == {"DOCUMENTS_UNAVAILABLE": 1}


def test_the_answers_that_are_compared_differ(world: TinyWorld) -> None:
    versions = [(prompt, text) for prompt in PROMPTS for text in DOCUMENTS.get(prompt.document or "", ("",))]
    expected = [world.truth.expected(prompt.name, text) for prompt, text in versions]
    assert len(set(expected)) == len(expected) == 52


def test_an_answer_of_another_question_is_found_out(
    world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = AnswerStream._account

    def another(stream: AnswerStream, text: str, *rest: Any, **more: Any) -> Any:
        return account(stream, text + "!", *rest, **more)

    monkeypatch.setattr(AnswerStream, "_account", another)
    network = Network(world, 11, lambda: None)
    with CheckedEdge(world, world.address, 20.0) as asker:
        ending, why = network._kept(asker.ask(PROMPTS[0], 20.0, 5, "none"))
    assert (ending, why) == (Ending.WRONG, "its own segments, and another answer")
    assert network.tally.violations[0].index == 5
