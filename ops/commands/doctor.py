"""`kvwire doctor`, `kvwire config check` and `kvwire smoke`: findings, and what to do about each."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.commands.options import EdgeFile
from ops.output import Json, print_json, print_table, progress_console

if TYPE_CHECKING:
    from ops.finding import Finding

configs = typer.Typer(no_args_is_help=True, help="Configurations of nodes.")


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
    from ops.doctor import examine

    with progress_console.status("looking around"):
        findings = examine(config)
    _report(findings, as_json)


_NODE_FILE = "A cloud.toml or an edge.toml."


@configs.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help=_NODE_FILE, exists=True, dir_okay=False, metavar="FILE")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="FILE, as other commands take it.", exists=True, dir_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Load a cloud.toml or an edge.toml and look at all it names: files, ports, models, bundle, database.

    Nothing is started, and nobody is asked. Exits with 1 where anything is bad; each such line says what to do.
    """
    from ops.finding import Finding, State
    from ops.node_check import node_findings, role_of

    named = {path for path in (file, config) if path is not None}
    if len(named) != 1:
        raise typer.BadParameter("name one cloud.toml or edge.toml", param_hint="FILE or --config")
    (path,) = named
    try:
        findings = list(node_findings(path, role_of(path), far=False))
    except (ValueError, OSError) as error:
        findings = [Finding(State.BAD, "config", str(error), "name a cloud.toml or an edge.toml")]
    _report(findings, as_json)


def smoke(
    config: Annotated[Path, EdgeFile],
    as_json: Json = False,
) -> None:
    """Go the way from this edge to its cloud step by step, and say which one is broken.

    Name, TCP, TLS and identity, health, then version, bundle, kind of slice and codecs. Exits with 1 where one is
    broken, and says what to do; what comes after it is not tried.
    """
    from ops.smoke import smoke as findings_of

    with progress_console.status("on the way to the cloud"):
        findings = list(findings_of(config))
    _report(findings, as_json)


def _report(findings: "Sequence[Finding]", as_json: bool) -> None:
    """Print findings; exits with 1 where one is bad."""
    from rich.text import Text

    from ops.finding import State

    bad = any(finding.state is State.BAD for finding in findings)
    if as_json:
        print_json({"ok": not bad, "findings": [finding.to_dict() for finding in findings]})
    else:
        colours = {State.GOOD: "green", State.NOTE: "yellow", State.BAD: "red"}
        rows = [
            (Text(finding.state, style=colours[finding.state]), finding.what, finding.found, finding.then)
            for finding in findings
        ]
        print_table(("", "what", "found", "next"), rows)
    if bad:
        raise typer.Exit(1)
