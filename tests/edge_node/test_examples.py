"""The programs of examples/ run as their docstrings say, against a real server and the tiny pair."""

import ast
import dataclasses
import re
import runpy
import sys
from pathlib import Path

import pytest

from edge_node import EdgeConfig
from tests.edge_node.local_api import Api
from tests.edge_node.toml import write_toml

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
QUESTION = "Who keeps the spare key?"


@pytest.fixture
def edge(config: EdgeConfig, tmp_path: Path) -> str:
    """An edge.toml that reaches the server."""
    return str(write_toml(config, tmp_path / "edge.toml"))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Said":
    return Said(monkeypatch, capsys)


class Said:
    """Runs an example as `python examples/NAME.py ...` does; gives its standard output and exit status."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, name: str, *arguments: str) -> tuple[str, int]:
        self.monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        status = 0
        try:
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        except SystemExit as left:
            status = int(left.code or 0)
        return self.capsys.readouterr().out, status


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_it_runs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert f"python examples/{path.name} " in (ast.get_docstring(ast.parse(text)) or "")


def test_a_support_desk_answers_from_a_ticket_or_says_why_not(edge: str, said: Said) -> None:
    shown, status = said("support_desk", edge, "note-1", QUESTION, "Where is it?")
    assert (
        status == 0 and shown.count(" positions of the ticket, ") == 2 and shown.startswith(f"{QUESTION}\n")
    )
    assert said("support_desk", edge, "gone", QUESTION) == (
        f"{QUESTION}\n  there is no ticket gone for this edge\n",
        1,
    )
    shown, status = said("support_desk", edge, "empty", QUESTION)
    assert status == 1 and "no answer: what the cloud at 127.0.0.1" in shown


def test_a_clinic_asks_about_records_at_once_and_by_drafts(edge: str, said: Said, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("Nothing is known of allergies.", encoding="utf-8")
    shown, _ = said("clinic", edge, str(notes), QUESTION, "note-1", "gone", "note-2")
    first, second, third = shown.splitlines()
    assert second.startswith("gone: NotFound: ")
    for name, line in (("note-1", first), ("note-2", third)):
        assert re.fullmatch(rf"{name}: .*\(record; [\d,]+ bytes of a draft\)", line), line


def test_of_several_clouds_the_first_that_answers_is_taken(
    edge: str, config: EdgeConfig, said: Said, tmp_path: Path
) -> None:
    gone = dataclasses.replace(config.cloud, address="127.0.0.1:1")
    other = write_toml(dataclasses.replace(config, cloud=gone), tmp_path / "other.toml")
    shown, status = said("several_clouds", QUESTION, "note-1", str(other), edge)
    first, second = shown.splitlines()
    assert first == "127.0.0.1:1: no answer (UNREACHABLE)" and second.startswith(f"{config.cloud.address}: ")
    assert status == 0
    assert said("several_clouds", QUESTION, "gone", edge)[1] == 3


def test_a_bandwidth_experiment_prints_a_line_for_each_plan(edge: str, said: Said, tmp_path: Path) -> None:
    questions = tmp_path / "questions.tsv"
    questions.write_text(f"note-1\t{QUESTION}\tIlse\nnote-2\tWho writes?\tmaster\n", encoding="utf-8")
    shown, _ = said("bandwidth", edge, str(questions))
    head, alone, *plans = shown.splitlines()
    assert head.split()[0] == "plan" and alone.split()[:4] == ["alone", "0", "0", "of"] and len(plans) == 9
    sizes = {line.split()[0]: int(line.split()[1]) for line in plans}
    assert sizes["int4:m4"] < sizes["int8:m4"] < sizes["raw:m4"] < sizes["raw:m8"]


def test_langchains_chat_model_asks_through_the_local_api(
    api: Api, config: EdgeConfig, said: Said, tmp_path: Path
) -> None:
    pytest.importorskip("langchain_openai", reason="pip install langchain-openai")
    there = dataclasses.replace(config.api, listen=f"127.0.0.1:{api.port}")
    edge = str(write_toml(dataclasses.replace(config, api=there), tmp_path / "edge.toml"))
    shown, status = said("langchain_chat", edge, "note-1", QUESTION)
    assert status == 0 and re.search(r" \(fused, [\d,]+ bytes received\)$", shown.strip())
    shown, status = said("langchain_chat", edge, "gone", QUESTION)
    assert status == 1 and shown.startswith("no answer: NOT_FOUND: ")
