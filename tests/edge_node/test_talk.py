"""`kvwire chat`: by a pipe, and over a pseudo-terminal as a person types."""

import base64
import dataclasses
import fcntl
import json
import os
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edge_node import Assistant, EdgeConfig
from edge_node.config import CloudPeer
from kvwire.errors import InvalidRequest
from kvwire.segment import SliceKind
from ops.cli import app
from ops.talk import Talk, told_of, user_token_in
from tests.edge_node.sharer_server import Part, RunningServer, wait_until
from tests.edge_node.toml import write_toml
from tests.process import modules_after

QUESTION = "Who keeps the spare key?"
PASTE_ON, PROMPT = "\x1b[?2004h", "<prompt>"
"""What a terminal is told when the prompt is there, and what tests call it."""


@pytest.fixture
def edge(config: EdgeConfig, tmp_path: Path) -> Path:
    return write_toml(config, tmp_path / "edge.toml")


def piped(config: Path, said: str, *more: str) -> Result:
    return CliRunner().invoke(app, ["chat", "--config", str(config), *more], input=said)


def test_each_line_of_a_pipe_is_a_question_and_gets_a_line(edge: Path, assistant: Assistant) -> None:
    done = piped(edge, f"{QUESTION}\n\n/document note-2\n{QUESTION}\n", "--document", "note-1")
    expected = [assistant.ask(QUESTION, document=document).text for document in ("note-1", "note-2")]
    assert (done.exit_code, done.stdout.splitlines()) == (0, expected)
    told = done.stderr.splitlines()  # how each came about, beside the lines that a program reads
    assert len(told) == 2 and all(line.startswith("(fused, ") for line in told)


def test_json_is_a_line_for_each_question_and_kind_and_notes_are_heard(
    edge: Path, server: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("a private remark", encoding="utf-8")
    said = f"/kind draft\n/notes @{tmp_path / 'notes.txt'}\n{QUESTION}\n/quit\nnever asked\n"
    done = piped(edge, said, "--document", "note-1", "--json")
    (answer,) = map(json.loads, done.stdout.splitlines())
    assert done.exit_code == 0
    assert (answer["source"], answer["kind"], answer["document"]) == ("fused", "draft", "note-1")
    sent = [section.text for request in server.service.requests for section in request.sections]
    assert QUESTION in sent and "a private remark" not in sent and "never asked" not in sent


def test_a_question_without_an_answer_is_an_empty_line_and_status_3(
    config: EdgeConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(config, cloud=CloudPeer(address="127.0.0.1:1"))
    done = piped(write_toml(config, tmp_path / "edge.toml"), f"{QUESTION}\n", "--document", "note-1")
    assert (done.exit_code, done.stdout) == (3, "\n")
    assert done.stderr.startswith("kvwire: no answer (UNREACHABLE): ")
    done = piped(tmp_path / "edge.toml", f"{QUESTION}\n")  # with nothing to read it would be a guess
    assert (done.exit_code, done.stdout) == (3, "\n")


@pytest.mark.parametrize(
    ("said", "told"),
    [("/document nobody\nWho?\nWho?", "NOT_FOUND"), ("/colour", "/help"), ("/kind big", "big")],
)
def test_what_is_refused_is_told_and_status_1_and_the_rest_goes_on(edge: Path, said: str, told: str) -> None:
    done = piped(edge, f"{said}\n/document note-1\n{QUESTION}\n", "--json")
    assert done.exit_code == 1 and told in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["source"] == "fused"
    assert ("error" in json.loads(done.stdout.splitlines()[0])) is (told == "NOT_FOUND")


def test_ask_and_chat_say_for_which_user_by_a_file_that_is_read_anew_for_each_question(
    edge: Path, assistant: Assistant, server: RunningServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token, about = tmp_path / "token", ["--document", "note-1", "--user-token-file", str(tmp_path / "token")]
    server.service.users = []
    token.write_text("aa.bb.cc\n")
    done = CliRunner().invoke(app, ["ask", QUESTION, "--config", str(edge), *about])
    assert done.exit_code == 0 and "aa.bb" not in done.output + caplog.text
    assert piped(edge, QUESTION, *about).exit_code == 0

    def said() -> Iterator[str]:
        for written in ("dd.ee.ff", "not one token"):
            token.write_text(written)
            yield QUESTION
        token.unlink()
        yield QUESTION

    talk = Talk(assistant, "note-1", "text", token)
    talk.run(said())
    assert talk.status == 1  # without a token that can be sent nothing is asked, and never as nobody
    assert server.service.users == [["Bearer aa.bb.cc"]] * 2 + [["Bearer dd.ee.ff"]]


def token_for(sub: str, signature: str = "c2ln") -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"sub": sub, "iss": "here"}).encode()).decode().rstrip("=")
    return f"e30.{claims}.{signature}"


def test_what_one_user_asked_is_not_sent_with_the_questions_of_another(
    assistant: Assistant, tmp_path: Path
) -> None:
    file, sent = tmp_path / "token", list[int]()
    talk = Talk(assistant, "note-1", None, file)
    talk.kind = SliceKind.DRAFT
    for token in (token_for("ann"), token_for("ann", "bmV3"), token_for("bob"), "unread.able", "other.one"):
        file.write_text(token)
        talk.run([QUESTION])
        assert talk._last is not None
        sent.append(talk._last.turns_sent)
    assert (talk.status, sent) == (0, [0, 1, 0, 0, 0])


@pytest.mark.parametrize("held", ["", "\n", "two of them", "a" * 8_193, "\ufeff", None])
def test_a_file_with_no_token_or_one_without_an_end_is_named(held: str | None, tmp_path: Path) -> None:
    file = Path("/dev/zero") if held is None else tmp_path / "token"
    if held is not None:
        file.write_text(held, encoding="utf-8")
    with pytest.raises(InvalidRequest, match=str(file)):
        user_token_in(file)


def test_a_token_may_have_a_mark_of_unicode_before_it_and_a_line_end_after(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("aa.bb.cc\r\n", encoding="utf-8-sig")
    assert user_token_in(tmp_path / "token") == "aa.bb.cc"


def test_the_account_of_an_answer_shows_ids_that_a_cloud_found_without_commands_to_the_terminal(
    assistant: Assistant,
) -> None:
    answer = assistant.ask(QUESTION, document="note-1")
    found = {"document": "\x1b]0;title\x07#", "passage": 1, "score": 0.5, "version": None}
    told = told_of(dataclasses.replace(answer, documents=(found,)))
    assert told.startswith(r"(\x1b]0;title\x07##1: ") and "\x1b" not in told


def test_help_loads_no_library_of_the_chat() -> None:
    loaded = modules_after("from ops.cli import app")
    assert not loaded & {"prompt_toolkit", "torch", "grpc", "starlette"}


class Terminal:
    """A chat on a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self.ours, theirs = os.openpty()
        self.raw, self.at = b"", 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ops.cli", "chat", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=os.environ | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "COLUMNS": "200"},
        )
        os.close(theirs)

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def until(self, said: str, within_s: float = 60.0) -> str:
        """What the terminal shows, from where the last call ended, up to and with `said`."""
        end = time.monotonic() + within_s
        while (at := self.shown.find(said, self.at)) < 0:
            ready, _, _ = select.select([self.ours], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{said!r} did not come: {self.shown[self.at :]!r}"
            self.raw += os.read(self.ours, 65_536)
        begin, self.at = self.at, at + len(said)
        return self.shown[begin : self.at]

    @property
    def shown(self) -> str:
        """All of it, without what moves the cursor and colours."""
        text = self.raw.decode(errors="replace").replace(PASTE_ON, PROMPT)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


@pytest.fixture
def terminal(edge: Path) -> Iterator[Terminal]:
    made = Terminal("--config", str(edge), "--document", "note-1")
    yield made
    made.close()


def held(parts: Iterable[Part]) -> list[Part | float]:
    """A slice that does not come."""
    return [*list(parts)[:1], 60.0]


@pytest.mark.slow
def test_a_person_asks_looks_at_the_wire_stops_and_leaves(
    terminal: Terminal, server: RunningServer, assistant: Assistant
) -> None:
    terminal.until(PROMPT)
    terminal.type(f"{QUESTION}\r")
    shown = terminal.until("(fused, 8 positions")
    assert assistant.ask(QUESTION, document="note-1").text in shown
    terminal.type("/wire\r")
    terminal.until("payload of the slice")
    terminal.until("generate")
    terminal.type("/kind draft\r")
    terminal.until("document note-1, kind draft, without notes")
    server.service.tamper = held
    server.service.requests.clear()
    terminal.type("\x1b[A\x1b[A\x1b[A\r")  # three lines back is the question
    wait_until(lambda: any(request.kind == "draft" for request in server.service.requests))
    terminal.type("\x03")
    terminal.until("(stopped; what is there is not whole)")
    assert server.service.cancelled.wait(20)
    terminal.until(PROMPT)
    terminal.type("\x03")
    assert terminal.process.wait(60) == 130


@pytest.mark.slow
def test_the_end_of_input_leaves_with_status_0(edge: Path) -> None:
    terminal = Terminal("--config", str(edge))
    try:
        terminal.until(PROMPT)
        terminal.type("\x04")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.close()
