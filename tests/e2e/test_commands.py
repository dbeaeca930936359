"""The commands that talk to a running cloud node."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from ops.cli import app
from tests.edge_node.toml import write_toml

if TYPE_CHECKING:
    from edge_node import EdgeConfig
    from tests.cloud_fixture import CloudNode


@pytest.fixture
def edge_toml(edge_config: "EdgeConfig", tmp_path: Path) -> str:
    return str(write_toml(edge_config, tmp_path / "edge.toml"))


def test_a_document_that_is_added_can_be_asked_about(
    filled_cloud: "CloudNode", edge_toml: str, tmp_path: Path
) -> None:
    runner, cloud = CliRunner(), ["--config", str(filled_cloud.directory / "cloud.toml"), "--tenant", "acme"]
    note = tmp_path / "note.txt"
    note.write_text("The boat is called Grey Petrel and lies at pier 9.", encoding="utf-8")
    add = ["documents", "add", str(note), "--id", "boat", *cloud, "--json"]
    added = runner.invoke(app, [*add, "--max-positions", "5"])
    (stored,) = json.loads(added.stdout)["documents"]
    known = {"id": "boat", "characters": 50, "max_positions": 5, "kinds": None, "outcome": "added"}
    assert stored | known == stored
    listed = runner.invoke(app, ["documents", "list", *cloud, "--json"])
    assert "boat" in {document["id"] for document in json.loads(listed.stdout)}
    question = ["ask", "What is the boat called?", "--document", "boat", "--config", edge_toml]
    asked = runner.invoke(app, [*question, "--json"])
    answer = json.loads(asked.stdout)
    assert (answer["source"], answer["positions"]) == ("fused", 5)
    spoken = runner.invoke(app, question)
    assert spoken.exit_code == 0
    assert spoken.stdout == f"{answer['text']}\n"
    assert "5 positions" in spoken.stderr
    dialled = runner.invoke(app, [*question, "--codec", "int8", "--positions", "3", "--json"])
    answer = json.loads(dialled.stdout)
    assert (answer["source"], answer["codec"], answer["positions"]) == ("fused", "int8", 3)
    assert answer["plan_reason"] == "REQUESTED"
    again = runner.invoke(app, [*add, "--replace", "--kinds", "draft"])
    (stored,) = json.loads(again.stdout)["documents"]
    assert (stored["max_positions"], stored["kinds"]) == (None, ["draft"])
    refused = runner.invoke(app, question)
    assert refused.exit_code != 0 and "excerpt slices of this document" in f"{refused.exception}"
    drafted = json.loads(runner.invoke(app, [*question, "--kind", "draft", "--json"]).stdout)
    assert (drafted["source"], drafted["kind"]) == ("fused", "draft") and 0 < drafted["positions"] <= 14
    wrong = runner.invoke(app, [*add, "--replace", "--kinds", "drafts"])
    assert wrong.exit_code == 2 and "drafts" in wrong.stderr
    unknown = runner.invoke(app, [*question, "--codec", "zip"])
    assert unknown.exit_code != 0 and "zip" in f"{unknown.stderr}{unknown.exception}"
    assert runner.invoke(app, ["documents", "remove", "boat", *cloud]).exit_code == 0
    gone = runner.invoke(app, question)
    assert gone.exit_code != 0


def test_an_answer_of_the_receiver_alone_says_so(edge_toml: str) -> None:
    done = CliRunner().invoke(
        app, ["ask", "Who?", "--source", "receiver-only", "--config", edge_toml, "--json"]
    )
    answer = json.loads(done.stdout)
    assert (answer["source"], answer["reason"], answer["bytes_sent"]) == ("receiver-only", "REQUESTED", 0)


def test_choices_are_given_one_by_one(edge_toml: str) -> None:
    question = [
        "ask",
        "Which boat?",
        "--choice",
        "Petrel",
        "--choice",
        "Tern",
        "--config",
        edge_toml,
        "--json",
    ]
    answer = json.loads(CliRunner().invoke(app, question).stdout)
    plain = [*question[:2], *question[6:]]
    assert answer["bytes_sent"] > json.loads(CliRunner().invoke(app, plain).stdout)["bytes_sent"] + 100


def test_the_doctor_asks_the_cloud_who_it_is(edge_toml: str) -> None:
    done = CliRunner().invoke(app, ["doctor", "--config", edge_toml, "--json"])
    report = json.loads(done.stdout)
    found = {finding["what"]: finding for finding in report["findings"]}
    assert found["cloud"]["state"] == found["cloud bundle"]["state"] == "ok"
    assert report["ok"], report
    assert done.exit_code == 0


def test_the_doctor_says_when_the_cloud_is_gone(edge_config: "EdgeConfig", tmp_path: Path) -> None:
    gone = dataclasses.replace(
        edge_config, cloud=dataclasses.replace(edge_config.cloud, address="127.0.0.1:9")
    )
    edge_toml = str(write_toml(gone, tmp_path / "edge.toml"))
    done = CliRunner().invoke(app, ["doctor", "--config", edge_toml, "--json"])
    assert done.exit_code == 1
    (bad,) = [finding for finding in json.loads(done.stdout)["findings"] if finding["state"] == "bad"]
    assert bad["what"] == "cloud" and "Unreachable" in bad["found"]
    asked = CliRunner().invoke(app, ["ask", "Who?", "--document", "note-1", "--config", edge_toml])
    assert (asked.exit_code, asked.stdout) == (3, "") and "UNREACHABLE" in asked.stderr
