"""A talk in a terminal: questions and commands in, answers out, and what crossed the wire for the last one."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from kvwire.errors import InvalidRequest, KvwireError, entry_of
from kvwire.limits import MAX_TOKEN_CHARS
from kvwire.segment import SliceKind
from ops.output import console, print_table, printable, progress_console, write_said

if TYPE_CHECKING:
    from edge_node import Answer, Assistant
    from edge_node.stream import AnswerStream

HELP: Final = """\
/document ID    ask about this document of the cloud; without an id about none
/new            forget the questions and answers so far: for a draft the next question is sent with the last of them
/kind KIND      of slice: excerpt or draft; without a name as configured
/notes TEXT     for this edge alone, never sent; /notes @FILE reads a file, without a text there are none
/wire           what crossed the wire for the last answer
/quit           leaves, as Ctrl-D does; Ctrl-C stops an answer, and a second one leaves"""
REFUSED: Final = 1
UNANSWERED: Final = 3
_SMALLER: Final = {
    "BYTE_BUDGET": "a smaller plan than the best, for the bytes allowed",
    "DEADLINE": "a smaller plan than the best, for the time allowed",
}
_AROUND: Final = 64
"""Bytes that may stand around a token in its file: a mark of Unicode, and line ends."""


class Talk:
    """Questions to an assistant, on a terminal each with those before it about the same document, by a pipe each by
    itself. The attributes are what is said beside a question.

    Args:
        lines: answers as plain lines, for a reader that is a program: "json" lines, or the "text" alone; None is a
            terminal, with pieces as they come and an account.
        user_token_file: has the token of the user who asks, and is read for each question: tokens end soon.
    """

    def __init__(
        self,
        assistant: Assistant,
        document: str | None,
        lines: str | None,
        user_token_file: Path | None = None,
    ) -> None:
        self.document, self.kind, self.notes = document, None, None
        self.status = 0
        """The exit status: 1 where a question was refused, else 3 where one got no answer, else 0."""
        self._assistant, self._lines, self._user_token_file = assistant, lines, user_token_file
        self._last: Answer | None = None
        self._conversation = assistant.conversation()
        self._user: object = None

    document: str | None
    kind: SliceKind | None
    notes: str | None

    def run(self, said: Iterable[str]) -> None:
        """Take what is said, line by line, to its end or /quit."""
        for line in said:
            line = line.strip()
            if line == "/quit":
                return
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._ask(line)

    def _command(self, line: str) -> None:
        name, _, value = line.partition(" ")
        value = value.strip()
        try:
            match name:
                case "/document":
                    self.document = value or None
                    self._conversation.forget()
                case "/new":
                    self._conversation.forget()
                case "/kind":
                    self.kind = SliceKind.named(value) if value else None
                case "/notes":
                    self.notes = (
                        Path(value[1:]).read_text("utf-8") if value.startswith("@") else value or None
                    )
                case "/wire":
                    self._show_wire()
                    return
                case "/help":
                    console.print(HELP, highlight=False)
                    return
                case _:
                    raise ValueError(f"there is no {name}; /help lists what there is")
        except (ValueError, OSError, KvwireError) as error:
            self._fail(str(error))
            return
        if self._lines is None:
            notes = "with notes" if self.notes else "without notes"
            kind = self.kind or "as configured"
            console.print(f"document {self.document or 'none'}, kind {kind}, {notes}", style="dim")

    def _ask(self, question: str) -> None:
        from edge_node import Ask

        try:
            token = user_token_in(self._user_token_file)
            before, self._user = self._user, _user_of(token)
            if self._lines is not None or self._user != before:  # what one user asked is not sent for another
                self._conversation.forget()
            # A program that reads lines cannot see which of them are guesses.
            alone = False if self._lines is not None and not (self.document or self.notes) else None
            asked = Ask(
                question,
                document=self.document,
                notes=self.notes,
                kind=self.kind,
                guess=alone,
                user_token=token,
            )
            answer = self._read(self._conversation.stream(asked))
        except KvwireError as error:
            reason = entry_of(type(error)).reason
            if self._lines == "json":
                write_said(json.dumps({"error": {"code": reason, "message": str(error)}}) + "\n")
            self._fail(f"{reason}: {error}")
            return
        if answer is not None:
            self._last = answer
            self._tell(answer)

    def _read(self, stream: AnswerStream) -> Answer | None:
        """The answer, shown as it comes; None where Ctrl-C stopped it."""
        if self._lines is not None:  # Ctrl-C ends it all
            for _ in stream:
                pass
            return stream.answer
        with _stoppable(stream) as stopped:
            try:
                for piece in stream:
                    write_said(piece)
            except KvwireError:
                if not stopped.is_set():
                    write_said("\n")
                    raise
        if stopped.is_set():
            write_said("\n")
            console.print("(stopped; what is there is not whole)", style="dim")
            return None
        return stream.answer

    def _tell(self, answer: Answer) -> None:
        from edge_node.answer import explained

        if self._lines == "json":
            write_said(answer.to_json() + "\n")
        elif self._lines == "text":
            write_said(f"{answer.text}\n")  # empty where there is no answer: line n is question n's
            if answer.answered:
                progress_console.print(told_of(answer), style="dim", highlight=False)
        elif answer.answered:
            write_said("\n")
            if answer.abstained:
                why = (
                    "not stated in the document" if answer.confidence is None else "withheld: not sure enough"
                )
                console.print(f"({why})", style="bold")
            elif answer.guess:
                console.print("(a guess: nothing of a document was read)", style="bold")
            console.print(told_of(answer), style="dim", soft_wrap=True)
        if not answer.answered:
            self._fail(
                f"no answer ({answer.reason}): {explained(answer, self._assistant.config.cloud.address)}",
                UNANSWERED,
            )

    def _fail(self, said: str, status: int = REFUSED) -> None:
        sys.stderr.write(f"kvwire: {said}\n")
        self.status = REFUSED if REFUSED in (status, self.status) else status

    def _show_wire(self) -> None:
        answer = self._last
        if answer is None:
            console.print("nothing was answered yet", style="dim")
            return
        plan = {name: value for name, value in (answer.plan or {}).items() if value}
        rows = [
            ("source", answer.source),
            ("reason", answer.reason or "none"),
            ("kind", answer.kind or "none"),
            ("plan", ", ".join(f"{name} {value}" for name, value in plan.items()) or "none"),
            ("why this plan", answer.plan_reason or "none"),
            ("positions", f"{answer.positions:,}"),
            ("quoted of the document", f"{answer.quoted:,} positions in {answer.runs} run(s)"),
            ("left of it today", left_of(answer)),
            ("payload of the slice", f"{answer.payload_bytes:,} bytes"),
            ("the answer's text", f"{len(answer.text.encode()):,} bytes"),
            ("earlier turns that were sent", f"{answer.turns_sent}"),
            ("messages up, down", f"{answer.bytes_sent:,}, {answer.bytes_received:,} bytes"),
            *((stage.replace("_", " "), f"{seconds:.3f} s") for stage, seconds in answer.timings.items()),
        ]
        to = console if self._lines is None else progress_console  # lines are for a program
        print_table(("what crossed the wire", ""), rows, to)


def user_token_in(file: Path | None) -> str | None:
    """The token of the user who asks, as `Ask.user_token`; None where no file is named.

    Raises:
        InvalidRequest: the file cannot be read, or what it has is no token.
    """
    if file is None:
        return None
    from edge_node.channel import for_user

    try:
        with file.open("rb") as opened:  # a device would never end
            read = opened.read(MAX_TOKEN_CHARS + _AROUND)
        token = read.decode("utf-8-sig", errors="replace").strip()
        for_user(token)
    except OSError as error:
        raise InvalidRequest(f"the user's token: {file}: {error.strerror}") from error
    except KvwireError as error:
        raise InvalidRequest(f"{file}: {error}") from error
    return token


def _user_of(token: str | None) -> object:
    """Whom a token names, to be compared alone: nothing is verified. Of one that cannot be read, the token."""
    try:
        claims = json.loads(base64.urlsafe_b64decode((token or "").split(".")[1] + "=="))
        return claims["sub"], claims.get("iss")
    except (LookupError, ValueError, TypeError, RecursionError):
        return token


def left_of(answer: Answer) -> str:
    """What may still leave of the document for this edge, as the cloud told it with the slice."""
    bounds = (
        ("positions", answer.positions_left),
        ("questions", answer.questions_left),
        ("new positions", answer.new_positions_left),
    )
    return ", ".join(f"{count:,} {name}" for name, count in bounds if count is not None) or "no bound told"


def told_of(answer: Answer, choices: Sequence[str] = ()) -> str:
    """Where an answer came from, in one line. choices: what there was to pick from."""
    from edge_node.answer import NO_PLANS

    named = f"choice: {choices[answer.choice]}, " if choices and answer.choice is not None else ""
    came = f"{answer.positions} positions" if answer.source == "fused" else f"reason {answer.reason}"
    why = (NO_PLANS if answer.plan is None else _SMALLER).get(answer.plan_reason or "")
    picked = f", {why}" if why else ""  # of the best plan, or of one that was named, there is nothing to say
    abstained = ", no answer: the Receiver does not find it in the slice" if answer.abstained else ""
    if answer.confidence is not None:  # of an answer: where it was abstained from, it was withheld
        abstained = f", confidence {answer.confidence:.2f}"
        if answer.abstained:
            abstained = (
                f", withheld as its confidence of {answer.confidence:.3f} is below {answer.least_confidence:g} "
                "(`kvwire ask --least-confidence 0` shows it)"
            )
    documents = [
        printable(f"{one['document']}#{one['passage'] or ''}").rstrip("#") for one in answer.documents
    ]
    found = any(one["score"] is not None for one in answer.documents)
    about = f"{', '.join(documents)}: " if found or len(documents) > 1 else ""
    account = (
        f"{about}{named}{answer.source}{abstained}, {came}{picked}, {answer.bytes_received:,} bytes received"
    )
    return f"({account}, first token after {answer.time_to_first_token_s:.2f} s)"


@contextlib.contextmanager
def _stoppable(stream: AnswerStream) -> Iterator[threading.Event]:
    """Ctrl-C closes the stream, from a thread of its own as this one may hold its locks; a second one interrupts."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        stopped.set()
        threading.Thread(target=stream.close).start()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
