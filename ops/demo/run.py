"""The demo from start to end: models, stage, questions, check, report."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from ops.demo.edge_api import EdgeApi
from ops.demo.report import DemoRow, Report, Said
from ops.demo.samples import DemoQuestion, DemoSample
from ops.demo.stage import CLOUD_START_S, EDGE_START_S, Cast, DemoStage
from ops.demo.wire_check import WireCheck, check_wire

if TYPE_CHECKING:
    from fuser.bundle.bundle import Bundle


@dataclass(frozen=True, slots=True)
class DemoAsked:
    """A question about a document of the cloud."""

    sample: DemoSample
    question: DemoQuestion


@dataclass(frozen=True, slots=True)
class Demo:
    """What to run. keep: leave the folder with configurations, logs and the capture where it is."""

    cast: Cast
    samples: tuple[DemoSample, ...]
    asked: tuple[DemoAsked, ...]
    max_new_tokens: int = 24
    keep: bool = False


def run_demo(
    demo: Demo,
    console: Console,
    check: Callable[[], None] = lambda: None,
    stay: Callable[[Report, str], None] | None = None,
) -> Report:
    """Run it; progress goes to `console`. `check` is called often, and ends it by raising.

    Before the nodes are ended, `stay` gets the report and the edge's address ("host:port").

    Raises:
        NodeFailed, AskFailed: a node did not start, or refused a question.
        ModelError, BadBundle: models or the bundle cannot be had.
    """
    from fuser.bundle.bundle import Bundle
    from fuser.models.load import load_tokenizer
    from ops.models.fetch import resolve

    started = time.monotonic()
    sharer, receiver = resolve(demo.cast.sharer), resolve(demo.cast.receiver)
    with _folder(demo, console) as folder, DemoStage(folder, demo.cast, demo.samples) as stage:
        with _progress(console) as progress:
            bundle = Bundle.load(demo.cast.bundle)
            tokenisers = [_tokeniser(load_tokenizer(path)) for path in (sharer, receiver)]
            alone, fused, given, wire = _ask_all(demo, stage, bundle, tokenisers, progress, check)
        report = Report(
            sharer=str(bundle.config.sharer.name),
            receiver=str(bundle.config.receiver.name),
            bundle=bundle.hash,
            codec=demo.cast.codec,
            bf16_bytes=2 * bundle.config.sharer_geometry.width,
            rows=_rows(demo, alone, fused, given, tokenisers[0]),
            wire=wire,
            seconds=time.monotonic() - started,
        )
        if stay is not None:
            stay(report, stage.edge.address(EDGE_START_S, check))
    return report


Answers = list[dict[str, Any]]
Tokeniser = Callable[[str], Sequence[int]]


def _ask_all(
    demo: Demo,
    stage: DemoStage,
    bundle: "Bundle",
    tokenisers: Sequence[Tokeniser],
    progress: Progress,
    check: Callable[[], None],
) -> tuple[Answers, Answers, Answers, WireCheck]:
    """The three columns. The Receiver gets a document's text last of all, when the capture has been read."""
    cloud = progress.add_task("starting the cloud node (Ray Serve, Sharer)", total=None)
    edge = progress.add_task("starting the edge node (Receiver)", total=None)
    api = EdgeApi(stage.edge.address(EDGE_START_S, check))
    progress.update(edge, total=1, completed=1)

    def ask(what: str, more: Callable[[DemoAsked], dict[str, Any]]) -> Answers:
        answers = []
        for one in progress.track(demo.asked, description=what):
            check()
            answers.append(api.ask(one.question.text, max_new_tokens=demo.max_new_tokens, **more(one)))
        return answers

    alone = ask("asking the Receiver alone", lambda one: {"source": "receiver-only"})
    stage.cloud.address(CLOUD_START_S, check)
    progress.update(cloud, total=1, completed=1)
    fused = ask("asking with slices from the cloud", lambda one: {"document": one.sample.id})
    search = progress.add_task("searching what crossed the wire", total=None)
    questions = [one.question.text for one in demo.asked]
    wire = check_wire(stage.capture, demo.samples, questions, tokenisers, bundle.codecs())
    progress.update(search, total=1, completed=1)
    given = ask(
        "giving the Receiver the text", lambda one: {"source": "receiver-only", "text": one.sample.text}
    )
    return alone, fused, given, wire


def _rows(
    demo: Demo, alone: Answers, fused: Answers, given: Answers, tokenise: Tokeniser
) -> tuple[DemoRow, ...]:
    rows = []
    for one, without, answer, told in zip(demo.asked, alone, fused, given, strict=True):
        accepted = one.question.answers
        rows.append(
            DemoRow(
                question=one.question.text,
                document=one.sample.id,
                right_answer=accepted[0],
                alone=Said.of(without["text"], accepted),
                fused=Said.of(answer["text"], accepted),
                fused_source=answer["source"],
                reason=answer["reason"],
                kind=answer["kind"] or "",
                given_text=Said.of(told["text"], accepted),
                bytes_on_wire=answer["bytes_sent"] + answer["bytes_received"],
                payload_bytes=answer["payload_bytes"],
                positions=answer["positions"],
                document_positions=len(tokenise(one.sample.text)),
                time_to_first_token_s=answer["time_to_first_token_s"],
            )
        )
    return tuple(rows)


def _tokeniser(tokenizer: Any) -> Tokeniser:
    def tokenise(text: str) -> Sequence[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    return tokenise


@contextlib.contextmanager
def _folder(demo: Demo, console: Console) -> Iterator[Path]:
    """A folder of this run's own. It goes when the run went well, and stays with its logs when not."""
    from fuser.models.directory import cache_directory

    runs = cache_directory() / "demo"
    runs.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=runs))
    try:
        yield folder
    except Exception:
        console.print(f"logs and configurations of this run: {folder}", markup=False, highlight=False)
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if demo.keep:
        console.print(f"kept: {folder}", markup=False, highlight=False)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _progress(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return _Told(*columns, console=console, transient=True)


class _Told(Progress):
    """Bars on a terminal; elsewhere a line for each task as it begins."""

    def add_task(self, description: str, *how: Any, **more: Any) -> TaskID:
        if not self.console.is_terminal:
            self.console.print(description, highlight=False)
        return super().add_task(description, *how, **more)
