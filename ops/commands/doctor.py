"""`kvwire doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from ops.output import Json, console, print_json, progress_console, table


def doctor(
    config: Annotated[
        Path | None,
        typer.Option(
            help="A cloud.toml or an edge.toml: also check what it names, and an edge's cloud.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check what is installed, which device there is, and whether a node has all it needs and can talk.

    Exits with 1 where anything is bad; each such line says what to do.
    """
    from rich.text import Text

    from ops.doctor import examine
    from ops.finding import State

    with progress_console.status("looking around"):
        findings = examine(config)
    bad = any(finding.state is State.BAD for finding in findings)
    if as_json:
        print_json({"ok": not bad, "findings": [finding.to_dict() for finding in findings]})
    else:
        colours = {State.GOOD: "green", State.NOTE: "yellow", State.BAD: "red"}
        rows = [
            (Text(finding.state, style=colours[finding.state]), finding.what, finding.found, finding.then)
            for finding in findings
        ]
        console.print(table(("", "what", "found", "next"), rows))
    if bad:
        raise typer.Exit(1)
