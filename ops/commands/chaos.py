"""`kvwire chaos`."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.bench.benchmark import Bench
from ops.chaos.run import Chaos, ChaosPart
from ops.commands.options import JsonOut, MarkdownOut

if TYPE_CHECKING:
    from rich.progress import Progress


def chaos(
    part: Annotated[
        list[ChaosPart] | None, typer.Option(help="May be given several times. [default: frames and network]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the faults: the same ones again with the same seed.")] = 1,
    faults: Annotated[
        int | None,
        typer.Option(min=1, help="Faults, requests or inputs of each part. [default: some minutes' worth]"),
    ] = None,
    index: Annotated[int | None, typer.Option(min=0, help="Only the fault of this number.")] = None,
    history: Annotated[
        Path | None, typer.Option(help="Append every request and its end here, one line of JSON each.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1.0, help="A soak ends after so long, with what it has by then.")
    ] = math.inf,
    json_out: JsonOut = None,
    markdown_out: MarkdownOut = None,
) -> None:
    """Break things on purpose, on tiny models, and check every answer: its own segments bit for bit, or it says why.

    Exit status 1, and how to see it again, if an answer was wrong, came after its deadline, or something crashed.
    """
    import logging

    from ops.chaos.report import markdown
    from ops.chaos.run import check, measure

    logging.disable(logging.CRITICAL)  # of the nodes, about what is done to them
    parts = tuple(dict.fromkeys(part or (ChaosPart.FRAMES, ChaosPart.NETWORK)))
    wanted = Chaos(parts, seed, faults, index, history, seconds)

    def work(progress: "Progress") -> Mapping[str, Any]:
        return measure(wanted, progress)

    settings = {"parts": [str(one) for one in parts], "faults": faults, "index": index}
    bench = Bench("chaos", settings, work, markdown, seed=seed)
    check(bench.run(json_out, markdown_out))
