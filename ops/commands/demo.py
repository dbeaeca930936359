"""`kvwire demo`."""

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.commands.options import BundleOption, DeviceOption, DtypeOption, ReceiverOption, SharerOption
from ops.output import Json, console, note, print_json, progress_console

if TYPE_CHECKING:
    from ops.demo.report import Report


def demo(
    sharer: SharerOption = None,
    receiver: ReceiverOption = None,
    bundle: BundleOption = None,
    codec: Annotated[
        str | None,
        typer.Option(help="The codec on the wire. [default: transform-2 where the bundle has it, or int8]"),
    ] = None,
    positions: Annotated[int, typer.Option(min=1, help="Document positions in a slice, at most.")] = 8,
    every: Annotated[bool, typer.Option("--all", help="Ask every question, not one a document.")] = False,
    documents: Annotated[int | None, typer.Option(min=1, help="Number of documents. [default: all]")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens an answer has at most.")] = 24,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    keep: Annotated[bool, typer.Option("--keep", help="Keep configurations, logs and capture.")] = False,
    page: Annotated[
        bool, typer.Option("--page", help="Then keep both nodes, with the edge's page, until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Answer questions about documents that never leave the cloud: two processes, one table.

    Exits with 1 where a question got no slice, or where the check of the wire fails.
    """
    from ops.demo import pair
    from ops.demo.interrupt import Interrupt
    from ops.demo.run import Demo, DemoAsked, run_demo
    from ops.demo.samples import load_samples
    from ops.demo.stage import Cast

    directory = (bundle or pair.BUNDLE).resolve()
    if not (directory / "config.json").is_file():
        raise FileNotFoundError(f"there is no bundle in {directory}; train one with `kvwire train`")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    samples = load_samples()[:documents]
    asked = [DemoAsked(sample, q) for sample in samples for q in sample.questions[: None if every else 1]]
    its = pair.models_of(directory)
    models = _found(sharer or its[0]), _found(receiver or its[1])
    cast = Cast(*models, directory, codec or pair.codec_of(directory), positions, device, dtype)

    def stay(report: "Report", address: str) -> None:
        _tell(report, as_json)
        _serve_page(f"http://{address}/", [sample.id for sample in samples])

    with Interrupt() as interrupt:
        script = Demo(cast, samples, tuple(asked), max_new_tokens, keep)
        report = run_demo(script, progress_console, interrupt.check, stay if page else None)
    if not page:
        _tell(report, as_json)
    if not report.passed:
        raise typer.Exit(1)


def _tell(report: "Report", as_json: bool) -> None:
    from ops.demo import pair
    from ops.demo.show import show

    if as_json:
        print_json(report.to_dict())
        sys.stdout.flush()
    else:
        show(report, console)
        if (report.sharer, report.receiver) == (pair.SHARER, pair.RECEIVER):
            larger = (
                f"a larger pair misspells less: kvwire demo --bundle {pair.LARGER} (1.1 GB more to fetch)"
            )
            note(larger)


def _serve_page(url: str, documents: list[str]) -> None:
    """Say where the page is, open it where there is a screen, and wait for Ctrl-C."""
    import webbrowser

    named = ", ".join(documents)
    said = f"the edge's page: {url}\nask it about {named}; Ctrl-C ends both nodes"
    note(said)
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def _found(model: str) -> str:
    """Directories as absolute paths: the nodes have working directories of their own."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() else model
