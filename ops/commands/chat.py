"""`kvwire chat`."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ops.commands.nodes import here
from ops.commands.options import EdgeFile, OtherDevice, OtherDtype, UserTokenFile, placed
from ops.output import loading, progress_console


def chat(
    config: Annotated[Path, EdgeFile] = Path("edge.toml"),
    document: Annotated[str | None, typer.Option(help="Id of a document that the cloud holds.")] = None,
    user_token_file: UserTokenFile = None,
    device: OtherDevice = None,
    dtype: OtherDtype = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each question.")] = False,
) -> None:
    """Ask from a terminal, one question after another; /help says what else can be typed.

    Questions may also come by a pipe, one a line. Then a line comes back for each, which is empty where there is no
    answer; how it came about, with its confidence, is told on standard error. The command exits with 3 if one got
    none, and with 1 if one was refused.
    """
    typed = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    lines = _typed() if typed else sys.stdin  # a missing library is told before a model is loaded
    from edge_node import Assistant, EdgeConfig
    from ops.talk import Talk

    settings = EdgeConfig.load(config)
    settings = replace(settings, receiver=here(placed(settings.receiver, device, dtype)))
    with loading("the Receiver") if typed else contextlib.nullcontext():
        assistant = Assistant.from_config(settings)
    if typed:
        progress_console.print("/help lists commands, /quit leaves", style="dim", highlight=False)
    with assistant:
        lines_as = None if typed else "json" if as_json else "text"
        talk = Talk(assistant, document, lines_as, user_token_file)
        talk.run(lines)
    if not typed and talk.status:
        raise typer.Exit(talk.status)


def _typed() -> Iterator[str]:
    """Lines that a person types, with those before to go back to; kept in memory alone."""
    from prompt_toolkit import PromptSession

    session: PromptSession[str] = PromptSession()

    def lines() -> Iterator[str]:
        while True:
            try:
                yield session.prompt("> ")
            except EOFError:
                return

    return lines()
