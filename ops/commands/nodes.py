"""`kvwire cloud`, `kvwire edge` and `kvwire ask`."""

import logging
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Annotated, Final, Literal, NoReturn, TypeVar

import typer

from kvwire.segment import SliceKind
from ops.commands.options import CloudFile, EdgeFile, OtherDevice, OtherDtype, UserTokenFile, placed
from ops.output import Json, console, failed, print_json, progress_console, write_said
from ops.talk import told_of, user_token_in

if TYPE_CHECKING:
    from cloud_node.config import SharerConfig
    from edge_node.answer import Answer
    from edge_node.config import EdgeConfig, ReceiverConfig

_KNOCK_S: Final = 1.0
Side = TypeVar("Side", "SharerConfig", "ReceiverConfig")


def cloud(
    config: Annotated[Path, CloudFile] = Path("cloud.toml"),
    device: OtherDevice = None,
    dtype: OtherDtype = None,
    as_json: Json = False,
) -> None:
    """Run a cloud node (Ray Serve and gateway) until SIGTERM or Ctrl-C."""
    from cloud_node import CloudConfig, leave, run

    try:
        settings = CloudConfig.load(config)
        settings = replace(settings, sharer=placed(settings.sharer, device, dtype))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"kvwire: {error}\n")
        raise typer.Exit(2) from None
    logging.getLogger("cloud_node").setLevel(logging.INFO)
    try:
        if settings.ray.address == "local":  # machines of a cluster look among their own models
            settings = replace(settings, sharer=here(settings.sharer))
        run(settings, lambda address: _say_listening(address, as_json))
    except KeyboardInterrupt:  # before the node listens to signals
        leave(130)
    except Exception as error:
        leave(failed(error))
    leave(0)


def edge(
    config: Annotated[Path, EdgeFile] = Path("edge.toml"),
    device: OtherDevice = None,
    dtype: OtherDtype = None,
    as_json: Json = False,
) -> None:
    """Run an edge node: the Receiver behind the OpenAI API on loopback, until SIGTERM or Ctrl-C."""
    from edge_node import EdgeConfig, run

    settings = EdgeConfig.load(config)
    settings = replace(settings, receiver=here(placed(settings.receiver, device, dtype)))
    for name in ("edge_node", "fuser.pair"):
        logging.getLogger(name).setLevel(logging.INFO)
    run(settings, lambda address: _say_listening(address if as_json else f"http://{address}/v1", as_json))


def ask(
    question: Annotated[str, typer.Argument(help="What to answer; the cloud reads it too.")],
    config: Annotated[Path, EdgeFile] = Path("edge.toml"),
    document: Annotated[
        list[str] | None,
        typer.Option(
            help="Id of a document that the cloud holds, or ID#N for its N-th passage; give it once for each."
        ),
    ] = None,
    search: Annotated[
        int, typer.Option(min=0, help="Search so many passages for the question's words, and ask about them.")
    ] = 0,
    notes: Annotated[
        Path | None,
        typer.Option(help="A text file for the Receiver alone; never sent.", exists=True, dir_okay=False),
    ] = None,
    choice: Annotated[
        list[str] | None,
        typer.Option(help="One of 2 to 10 to pick from; give it once for each."),
    ] = None,
    source: Annotated[
        Literal["auto", "receiver-only", "relayed"],
        typer.Option(
            help="receiver-only asks the cloud nothing, relayed for the Sharer's own answer as text."
        ),
    ] = "auto",
    guess: Annotated[
        bool,
        typer.Option("--guess", help="Without a slice, show what the Receiver guesses."),
    ] = False,
    require_fused: Annotated[
        bool, typer.Option("--require-fused", help="No answer but from a whole slice, whatever is asked.")
    ] = False,
    least_confidence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="P",
            help="Withhold an answer from a slice that is less likely to be right; 0 shows all. "
            "[default: as edge.toml says, else the bundle]",
        ),
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens at most.")] = None,
    max_bytes: Annotated[
        int | None, typer.Option(min=0, help="Bytes of the slice at most; 0 is no cap.")
    ] = None,
    deadline: Annotated[float | None, typer.Option(min=0.05, help="Seconds that the slice may take.")] = None,
    kind: Annotated[
        SliceKind | None,
        typer.Option(help="Kind of the slice. [default: as edge.toml says]"),
    ] = None,
    codec: Annotated[str | None, typer.Option(help="Codec of the slice, in place of a picked plan.")] = None,
    positions: Annotated[
        int | None, typer.Option(min=1, help="Positions at most, in place of a picked plan.")
    ] = None,
    user_token_file: UserTokenFile = None,
    device: OtherDevice = None,
    dtype: OtherDtype = None,
    as_json: Json = False,
) -> None:
    """Ask one question from this machine, as an edge. The answer is one line; how it came about is told on standard
    error.

    Where the Receiver does not find the answer in the slice, what it says then, such as "not stated", is printed, and
    standard error tells that it is none ("abstained" with --json).

    Exits with 3 where there is no answer: no slice could be had, of a document or, without one and without notes, of
    the question. Standard output is then empty (with --json it has the whole account), and standard error says why and
    what to do.
    """
    from edge_node import Ask, Assistant, EdgeConfig
    from edge_node.answer import RECEIVER_ONLY, UNREACHABLE, Answer, explained

    settings = EdgeConfig.load(config)
    asked = Ask(
        question,
        documents=document or (),
        search=search,
        notes=None if notes is None else notes.read_text(encoding="utf-8"),
        kind=kind,
        max_new_tokens=max_new_tokens,
        deadline_s=deadline,
        max_bytes=max_bytes,
        source=source,
        choices=choice or (),
        # With nothing to read the Receiver could only guess, as over a document of which it has no slice.
        guess=guess or (None if notes is not None else False),
        require_fused=require_fused,
        least_confidence=least_confidence,
        user_token=user_token_in(user_token_file),
    )
    cloud = settings.cloud.address
    if asked.over_document and source != "receiver-only" and not (guess or as_json) and _nobody_at(settings):
        _no_answer(Answer("", 0, RECEIVER_ONLY, reason=UNREACHABLE), cloud, require_fused)
    settings = replace(settings, receiver=here(placed(settings.receiver, device, dtype)))
    with Assistant.from_config(settings) as assistant:
        if codec or positions:
            share = assistant.config.share
            usual = share.configured(kind or share.usual(asked.over_document, assistant.bundle.config.usual))
            plan = replace(usual, codec=codec or usual.codec, positions=positions or usual.positions)
            asked = replace(asked, plan=plan)
        stream = assistant.stream(asked)
        may_guess = guess and source == "auto"
        at_once = not (
            as_json or may_guess
        )  # what may be a guess is shown once it is known whether it is one
        for piece in stream:
            if at_once:
                write_said(piece)
        answer = stream.answer
    if as_json:
        print_json(answer.to_dict())
    if not answer.answered:
        _no_answer(answer, cloud, require_fused)
    if answer.guess and source == "auto":
        sys.stderr.write(f"kvwire: a guess, not an answer ({answer.reason}): {explained(answer, cloud)}\n")
    if as_json:
        return
    write_said("\n" if at_once else f"{answer.text}\n")
    progress_console.print(told_of(answer, choice or ()), style="dim", soft_wrap=True)


def _no_answer(answer: "Answer", cloud: str, require_fused: bool) -> NoReturn:
    from edge_node.answer import explained

    other = "" if require_fused else "; --guess shows what the Receiver guesses"
    sys.stderr.write(f"kvwire: no answer ({answer.reason}): {explained(answer, cloud)}{other}\n")
    raise typer.Exit(3)


def _nobody_at(settings: "EdgeConfig") -> bool:
    """Whether every address of the cloud refuses a connection within `_KNOCK_S`: the Receiver need not be loaded then.

    What else may be wrong the call itself finds out, with its deadline.
    """
    found = SimpleQueue[bool]()
    knock = lambda: found.put(all(map(_refuses, settings.cloud.addresses)))  # noqa: E731
    # In a thread: nothing bounds the time in which a name is looked up.
    threading.Thread(target=knock, daemon=True).start()
    try:
        return found.get(timeout=_KNOCK_S)
    except Empty:
        return False


def _refuses(address: str) -> bool:
    from edge_node.config import split_address

    try:
        socket.create_connection(split_address(address), timeout=_KNOCK_S, all_errors=True).close()
    except ExceptionGroup as failed:  # one of each address that the name has
        return all(isinstance(error, ConnectionRefusedError) for error in failed.exceptions)
    except (OSError, UnicodeError):
        pass
    return False


def here(side: Side) -> Side:
    """A model's table of a configuration with the model's directory; what is not on this machine is fetched."""
    from ops.models.fetch import resolve

    return replace(side, model=str(resolve(side.model).absolute()))


def _say_listening(address: str, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(f'{{"listening": "{address}"}}\n')
        sys.stdout.flush()
    else:
        console.print(f"listening on {address}; Ctrl-C ends it")
