"""`kvwire documents add|list|remove`: the documents that a cloud node holds."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvwire.segment import SliceKind
from ops.output import Json, console, print_json, print_mapping, table

if TYPE_CHECKING:
    from cloud_node.documents import DocumentInfo, Documents

app = typer.Typer(no_args_is_help=True, help="The documents that a cloud node holds.")

Config = Annotated[
    Path, typer.Option("--config", help="The cloud's cloud.toml.", exists=True, dir_okay=False)
]
Tenant = Annotated[str, typer.Option(help="Whose documents.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The document's id.")]


@app.command()
def add(
    document_id: Id,
    file: Annotated[str, typer.Argument(help="A UTF-8 text file; '-' reads standard input.")],
    config: Config,
    tenant: Tenant,
    max_positions: Annotated[
        int | None,
        typer.Option(min=0, help="Positions that one slice may carry. [default: the cloud's policy]"),
    ] = None,
    kinds: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated kinds of slice that it may be in, such as draft. [default: the cloud's policy]"
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Take the place of one with this id, and of its limits."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Store a document."""
    allowed = None if kinds is None else _kinds(kinds)
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    info = _open(config).add(tenant, document_id, text, max_positions, replace, allowed)
    if as_json:
        print_json(asdict(info))
        return
    print_mapping(dict(zip(_COLUMNS, _shown(info), strict=True)), as_json=False)


@app.command("list")
def list_documents(config: Config, tenant: Tenant, as_json: Json = False) -> None:
    """List a tenant's documents, without their text."""
    found = _open(config).list(tenant)
    if as_json:
        print_json([asdict(document) for document in found])
        return
    console.print(table(_COLUMNS, [_shown(document) for document in found]))


@app.command()
def remove(document_id: Id, config: Config, tenant: Tenant, as_json: Json = False) -> None:
    """Forget a document."""
    _open(config).remove(tenant, document_id)
    print_mapping({"removed": document_id}, as_json)


_COLUMNS = ("id", "characters", "positions allowed", "kinds")


def _shown(document: "DocumentInfo") -> tuple[object, ...]:
    positions = "policy" if document.max_positions is None else document.max_positions
    kinds = "policy" if document.kinds is None else ", ".join(document.kinds) or "none"
    return document.id, document.characters, positions, kinds


def _kinds(text: str) -> tuple[SliceKind, ...]:
    try:
        return tuple(SliceKind(word.strip()) for word in text.split(",") if word.strip())
    except ValueError as error:
        known = ", ".join(SliceKind)
        raise typer.BadParameter(f"{error}; there are {known}", param_hint="--kinds") from error


def _open(config: Path) -> "Documents":
    from cloud_node import CloudConfig
    from cloud_node.documents import Documents

    return Documents(CloudConfig.load(config).documents)
