"""`kvwire audit-log verify|anchor|export|exposure`: the record of what left a cloud node."""

import csv
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ops.commands.options import CLOUD_TOML, CloudFile
from ops.output import Json, note, print_json, print_mapping, print_table

app = typer.Typer(no_args_is_help=True, help="The audit log of a cloud node.")

File = Annotated[
    Path | None,
    typer.Argument(
        help="The audit log, in place of the one that cloud.toml names; files put away beside it are read first.",
        show_default=False,
        dir_okay=False,
    ),
]
Config = Annotated[Path | None, CloudFile]
Key = Annotated[
    Path | None,
    typer.Option(
        "--key",
        help="The key that signs it.",
        show_default="as cloud.toml names it, or beside the log",
        dir_okay=False,
    ),
]
First = Annotated[
    int,
    typer.Option("--first", help="Number of the first line, where older files were moved elsewhere.", min=1),
]


@app.command()
def verify(
    file: File = None,
    config: Config = None,
    key: Key = None,
    anchor: Annotated[
        Path | None,
        typer.Option(help="Anchors that were kept elsewhere, one a line.", exists=True, dir_okay=False),
    ] = None,
    first: First = 1,
    as_json: Json = False,
) -> None:
    """Check that every line follows from the one before it, that the node signed them, and that no anchor's is missing.

    Without an anchor, whole lines missing at the end are not seen, nor a log that whoever has the key made anew.
    """
    from cloud_node.audit import BrokenChain
    from cloud_node.audit_chain import read_anchors
    from cloud_node.audit_chain import verify as verified

    file, key = _log(file, config, key)
    anchors = read_anchors(anchor.read_text(encoding="utf-8")) if anchor else []
    try:
        found = verified(file, _public(file, key, needed=not anchors), anchors, first)
    except BrokenChain as error:
        raise BrokenChain(f"not verified: {error}") from error
    begins, ends = (_utc(time) if found.records else None for time in (found.since, found.last.time))
    if as_json:
        told = {"file": str(file), "verdict": "whole", "first": found.first, "records": found.records}
        told |= {"last": found.last.sequence, "from": begins, "to": ends}
        print_json(told | {"signed": found.signed, "anchors": len(anchors)})
        return
    parts = [f"whole: {found.records:,} lines" + (f", {begins} to {ends}" if found.records else "")]
    parts.append("signed by the node" if found.signed else "no signature was checked")
    parts.append(
        f"{len(anchors):,} anchors hold"
        if anchors
        else "without an anchor lines missing at the end do not show"
    )
    print_mapping({str(file): "; ".join(parts)}, as_json=False)


@app.command()
def anchor(file: File = None, config: Config = None, key: Key = None, first: First = 1) -> None:
    """Print the number and hash of the last line, and the node's public key: to be kept where the node cannot write.

    `verify --anchor` finds what was cut off or made anew up to there, and needs no key.
    """
    from dataclasses import replace

    from cloud_node.audit_chain import anchor_text
    from cloud_node.audit_chain import verify as verified

    file, key = _log(file, config, key)
    public = _public(file, key, needed=True)
    typer.echo(anchor_text(replace(verified(file, public, first=first).last, public_key=public or "")))


@app.command()
def export(
    file: File = None,
    config: Config = None,
    since: Annotated[
        datetime | None,
        typer.Option(help="From this time (UTC) on.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(help="Before this time (UTC).", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    ] = None,
    document: Annotated[
        str | None, typer.Option(metavar="ID", help="Only lines about this document.")
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(
            help="Only lines about this text of a document, as an answer names it or its beginning."
        ),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    form: Annotated[Literal["jsonl", "csv"], typer.Option("--format")] = "jsonl",
    first: First = 1,
) -> None:
    """Print lines of the log, as they stand there or as CSV. The chain is checked on the way; `verify` checks more."""
    from cloud_node.audit import NAMES, canonical
    from cloud_node.audit_chain import lines

    wanted = _between(lines(_log(file, config)[0], first), since, until)
    chosen = (
        line
        for line in wanted
        if (document is None or document in line["documents"])
        and (version is None or any(one.startswith(version) for one in line["versions"]))
        and (tenant is None or line["tenant"] == tenant)
    )
    if form == "jsonl":
        for line in chosen:
            typer.echo(canonical(line))
        return
    writer = csv.DictWriter(sys.stdout, NAMES, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for line in chosen:
        writer.writerow(
            {name: json.dumps(value) if isinstance(value, list) else value for name, value in line.items()}
        )


@app.command()
def exposure(
    document: Annotated[str, typer.Argument(metavar="ID", help="The document's id.")],
    tenant: Annotated[str, typer.Option(help="Whose document.")],
    file: File = None,
    config: Config = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Its text as the cloud has it, redacted where it redacts: what was quoted is printed.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    first: First = 1,
    as_json: Json = False,
) -> None:
    """What left of each version of a document, from this log alone: `kvwire documents exposure` asks the store.

    A version is drawn at random when a text is stored, and an answer names it; tables have its first 12 digits. With
    --text what is told is of that text alone.
    """
    from dataclasses import asdict

    from cloud_node.audit_chain import lines
    from cloud_node.audit_exposure import exposure_in
    from cloud_node.documents import hash_of

    written = text.read_bytes().decode("utf-8") if text else ""
    found = exposure_in(
        lines(_log(file, config)[0], first), tenant, document, hash_of(written) if text else None
    )
    if text and not found:
        raise ValueError(f"{text} is no text of {document} of which something left")
    if as_json:
        told = {
            version: {"days": [asdict(day) for day in days], "quoted": [asdict(one) for one in quotes]}
            for version, (days, quotes) in found.items()
        }
        print_json({"id": document, "tenant": tenant, "versions": told})
        return
    rows = [
        (
            version[:12],
            day.day,
            day.identity,
            f"{day.questions:,}",
            f"{day.positions:,}",
            f"{day.new_positions:,}",
        )
        for version, (days, _) in found.items()
        for day in days
    ]
    if not rows:
        note(f"nothing has left of {document}")
        return
    print_table(("version", "day", "identity", "questions", "positions", "new positions"), rows)
    pieces = [
        (
            version[:12],
            one.identity,
            f"{begins:,}-{ends:,}",
            f"{times:,}",
            repr(written[begins:ends]) if text else "",
        )
        for version, (_, quotes) in found.items()
        for one in quotes
        for begins, ends, times in one.spans
    ]
    print_table(("version", "identity", "characters", "times", "quoted"), pieces)


def _log(file: Path | None, config: Path | None, key: Path | None = None) -> tuple[Path, Path | None]:
    """The log and the key that signs it: as they are named, else as the cloud's configuration has them."""
    if file is not None:
        if config is not None:
            raise typer.BadParameter("either a log or --config")
        return file, key
    if config is None and not CLOUD_TOML.is_file():
        raise typer.BadParameter(f"name a log, or --config: there is no {CLOUD_TOML} in this folder")
    from cloud_node import CloudConfig

    settings = CloudConfig.load(config or CLOUD_TOML)
    return Path(settings.audit), key or (Path(settings.audit_key) if settings.audit_key else None)


def _utc(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")


def _public(log: Path, key: Path | None, *, needed: bool) -> str | None:
    """The public key of the node's; None where none is needed and none is there.

    Raises:
        BadKey: it holds none. OSError: it cannot be read. FileNotFoundError: log or key is not there.
    """
    from cloud_node.audit import files_of, key_beside, public_hex, signing_key

    path = key or key_beside(log)
    if path.exists():
        return public_hex(signing_key(path))
    if not files_of(log):
        raise FileNotFoundError(f"{log}: there is no such log")
    if needed or key is not None:
        raise FileNotFoundError(f"{path}: there is no such key; --key names the one that signs {log}")
    return None


def _between(
    lines: Iterator[dict[str, Any]], since: datetime | None, until: datetime | None
) -> Iterator[dict[str, Any]]:
    begins = since.replace(tzinfo=UTC).timestamp() if since else float("-inf")
    ends = until.replace(tzinfo=UTC).timestamp() if until else float("inf")
    return (line for line in lines if begins <= line["time"] < ends)
