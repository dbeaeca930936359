"""`kvwire chaos`: what it prints, writes, and how it ends."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kvwire.slice_io import Frame, SliceAssembler
from ops.chaos.run import InvariantBroken
from ops.cli import app


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """The command silences the nodes; other tests look at what they log."""
    yield
    logging.disable(logging.NOTSET)


def test_a_run_without_violation_is_status_0_and_a_table(tmp_path: Path) -> None:
    out = tmp_path / "chaos.json"
    done = CliRunner().invoke(app, ["chaos", "--part", "frames", "--faults", "63", "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert "| values shuffled, frames resealed | 3 | 3 | 0 | 0 | 0 | 0 | BAD_CHECKSUM 3 |" in done.stdout
    report = json.loads(out.read_text())
    assert report["seed"] == 1 and report["results"]["frames"]["all"]["faults"] == 63


def test_a_violation_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Frame, "computed_checksum", lambda frame, digest: frame.checksum)
    monkeypatch.setattr(SliceAssembler, "finish", lambda assembler, trailer: None)
    done = CliRunner().invoke(app, ["chaos", "--part", "frames", "--faults", "21", "--seed", "4"])
    assert done.exit_code == 1 and isinstance(done.exception, InvariantBroken)
    told = str(done.exception)
    assert "again with kvwire chaos --part frames --seed 4 --index" in told
    again = ["chaos", "--part", "frames", "--seed", "4", "--index", told.rpartition(" ")[2]]
    done = CliRunner().invoke(app, again)
    assert str(done.exception).startswith("1 times what must never happen")


def test_the_history_has_a_line_for_each_ask(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    command = ["chaos", "--part", "network", "--index", "1", "--history", str(history)]
    assert CliRunner().invoke(app, command).exit_code == 0
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    assert {"connection: reset", "none"} == {line["fault"] for line in lines}
    assert len({line["request_id"] for line in lines}) == len(lines)
