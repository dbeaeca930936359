"""`kvwire ask` at an edge: an answer on standard output, or none and why on standard error."""

import dataclasses
import json
import socket
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from typer.testing import CliRunner, Result

from edge_node import Assistant, EdgeConfig
from edge_node.config import CloudPeer
from fuser.models.directory import NoSuchDevice
from kvwire.errors import Busy, DeadlineExceeded
from kvwire.messages import Found
from ops.cli import app
from tests.edge_node.sharer_server import RunningServer, SliceService
from tests.edge_node.toml import write_toml

QUESTION = "Who keeps the spare key?"
DOCUMENT = ("--document", "note-1")


@pytest.fixture
def edge(config: EdgeConfig, tmp_path: Path) -> str:
    return str(write_toml(config, tmp_path / "edge.toml"))


@pytest.fixture
def cut_off_edge(config: EdgeConfig, tmp_path: Path) -> str:
    config = dataclasses.replace(config, cloud=CloudPeer(address="127.0.0.1:1"))
    return str(write_toml(config, tmp_path / "cut-off.toml"))


def ask(config: str, *arguments: str, question: str = QUESTION) -> Result:
    return CliRunner().invoke(app, ["ask", question, "--config", config, *arguments])


def account(config: str, *arguments: str) -> tuple[int, Any]:
    done = ask(config, *arguments, "--json")
    return done.exit_code, json.loads(done.stdout)


def test_an_answer_is_one_line_and_status_0(edge: str) -> None:
    done = ask(edge, *DOCUMENT)
    status, answer = account(edge, *DOCUMENT)
    assert (done.exit_code, status, done.stdout) == (0, 0, f"{answer['text']}\n")
    assert answer["source"] == "fused" and done.stderr.startswith("(fused, 8 positions")


def test_several_documents_may_be_named_or_searched_for(edge: str, slice_service: SliceService) -> None:
    done = ask(edge, *DOCUMENT, "--document", "two#2")
    assert done.exit_code == 0 and "(note-1, two#2: fused, 8 positions" in done.stderr
    slice_service.finds = (Found("note-2", 1, 0.5),)
    status, answer = account(edge, "--search", "3")
    found = {"document": "note-2", "passage": 1, "score": 0.5, "version": "0" * 32}
    assert status == 0 and answer["documents"] == [found]
    slice_service.finds = ()
    done = ask(edge, "--search", "3")
    assert (done.exit_code, done.stdout) == (3, "")
    assert "no answer (NOTHING_FOUND): no passage of this tenant's documents" in done.stderr
    assert "a guess, not an answer (NOTHING_FOUND)" in ask(edge, "--search", "3", "--guess").stderr


def test_the_device_of_the_command_line_goes_before_the_configured_one(
    edge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = ask(edge, *DOCUMENT, "--device", "cuda")
    assert isinstance(done.exception, NoSuchDevice) and "device cuda is not there" in str(done.exception)
    assert ask(edge, *DOCUMENT, "--device", "cpu", "--dtype", "float32").exit_code == 0


def test_without_a_slice_nothing_is_said_but_why_and_what_to_do(cut_off_edge: str) -> None:
    done = ask(cut_off_edge, *DOCUMENT)
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.startswith(
        "kvwire: no answer (UNREACHABLE): the cloud at 127.0.0.1:1 cannot be reached"
    )
    assert done.stderr.count("\n") == 1
    for hint in ("`kvwire cloud`", "`kvwire doctor", "--guess"):
        assert hint in done.stderr
    status, answer = account(cut_off_edge, *DOCUMENT)
    assert status == 3 and (answer["answered"], answer["text"], answer["reason"]) == (
        False,
        "",
        "UNREACHABLE",
    )


def test_where_nobody_listens_that_is_told_before_the_receiver_is_loaded(
    config: EdgeConfig, server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = CloudPeer(address="127.0.0.1:1", fallbacks=("127.0.0.1:2",))
    near = dataclasses.replace(away, fallbacks=(config.cloud.address,))
    paths = {
        name: str(write_toml(dataclasses.replace(config, cloud=cloud), tmp_path / f"{name}.toml"))
        for name, cloud in (("away", away), ("near", near))
    }
    loaded = list[EdgeConfig]()
    with monkeypatch.context() as patch:
        patch.setattr(Assistant, "from_config", loaded.append)
        assert ask(paths["away"], *DOCUMENT).exit_code == 3 and not loaded
        ask(paths["near"], *DOCUMENT)
        ask(paths["away"], *DOCUMENT, "--guess")
        assert len(loaded) == 2
        refused = ConnectionRefusedError()
        for failure in (  # of the addresses that a name has
            ExceptionGroup("", [refused, refused]),
            ExceptionGroup("", [TimeoutError(), refused]),
            socket.gaierror(),
        ):
            patch.setattr(socket, "create_connection", Mock(side_effect=failure))
            ask(paths["away"], *DOCUMENT)
    assert len(loaded) == 4
    assert ask(paths["near"], *DOCUMENT).exit_code == 0


@pytest.mark.parametrize(("failure", "said"), [(Busy(60.0), "no room"), (DeadlineExceeded(), "in time")])
def test_each_reason_has_its_words(edge: str, server: RunningServer, failure: Any, said: str) -> None:
    server.service.failures.append(failure)
    done = ask(edge, *DOCUMENT)
    assert (done.exit_code, done.stdout) == (3, "") and said in done.stderr


def test_a_guess_is_shown_when_asked_for_and_marked_before_it(cut_off_edge: str) -> None:
    done = ask(cut_off_edge, *DOCUMENT, "--guess")
    assert done.exit_code == 0 and "receiver-only" in done.stderr
    assert done.stderr.startswith("kvwire: a guess, not an answer (UNREACHABLE)")
    status, answer = account(cut_off_edge, *DOCUMENT, "--guess")
    assert status == 0 and answer["answered"] and done.stdout.startswith(f"{answer['text']}\n")


def test_without_a_document_the_receiver_alone_is_a_guess_too_and_none_is_shown_unasked(
    cut_off_edge: str, edge: str, tmp_path: Path
) -> None:
    done = ask(cut_off_edge)
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.startswith("kvwire: no answer (UNREACHABLE)") and "--guess" in done.stderr
    status, answer = account(cut_off_edge)
    assert status == 3 and (answer["answered"], answer["text"], answer["reason"]) == (
        False,
        "",
        "UNREACHABLE",
    )
    for more in ([], ["--json"]):
        done = ask(cut_off_edge, "--guess", *more)
        assert done.exit_code == 0 and "receiver-only" in done.output
        assert done.stderr.startswith("kvwire: a guess, not an answer (UNREACHABLE)")
    assert ask(edge).exit_code == 0 and "kvwire" not in ask(edge).stderr  # a slice of the question
    (tmp_path / "notes.txt").write_text("Ilse keeps the spare key.", encoding="utf-8")
    noted = ask(cut_off_edge, "--notes", str(tmp_path / "notes.txt"))
    assert noted.exit_code == 0 and "kvwire" not in noted.stderr


def test_the_receiver_alone_answers_where_it_is_asked_for_and_not_where_a_fused_answer_is_required(
    cut_off_edge: str, edge: str
) -> None:
    for arguments in ([], DOCUMENT):
        done = ask(cut_off_edge, "--source", "receiver-only", *arguments)
        assert done.exit_code == 0 and "kvwire" not in done.stderr
    assert ask(edge, "--require-fused").exit_code == 0
    done = ask(cut_off_edge, "--require-fused")
    assert (done.exit_code, done.stdout) == (3, "") and "--guess" not in done.stderr
    status, answer = account(cut_off_edge, "--require-fused")
    assert status == 3 and (answer["answered"], answer["text"]) == (False, "")


def test_a_least_confidence_is_taken_and_refused_by_name_where_it_has_no_effect(edge: str) -> None:
    assert ask(edge, *DOCUMENT, "--least-confidence", "0").exit_code == 0
    for arguments, said in (
        (DOCUMENT, "least_confidence: of answers behind excerpt slices the bundle cannot tell it"),
        ((*DOCUMENT, "--choice", "Ilse", "--choice", "Mara"), "leave choices and source out"),
        ((*DOCUMENT, "--source", "receiver-only"), "leave choices and source out"),
    ):
        done = ask(edge, *arguments, "--least-confidence", "0.5")
        assert done.exit_code == 1 and said in str(done.exception)
    assert ask(edge, *DOCUMENT, "--least-confidence", "1.5").exit_code == 2


def test_choices_that_look_like_markup_are_printed_as_they_are(
    edge: str, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fuser.receiver import Prefilled

    for letter, choice in (("A", "list[int]"), ("B", "[/b]"), ("C", ":key:")):
        monkeypatch.setattr(
            Prefilled, "generate", lambda *_, letter=letter: iter([f"The correct answer is {letter}."])
        )
        done = ask(edge, "--choice", "list[int]", "--choice", "[/b]", "--choice", ":key:")
        assert done.exit_code == 0, done.exception
        assert f"choice: {choice}, fused" in done.stderr


@pytest.mark.parametrize("question", ["", " ", "\n\u3000", "\udcff"])
def test_a_blank_question_is_refused(edge: str, server: RunningServer, question: str) -> None:
    done = ask(edge, question=question)
    assert done.exit_code == 1 and not done.stdout and not server.service.requests
    assert ("there is no question" in str(done.exception)) is (not question.strip())
