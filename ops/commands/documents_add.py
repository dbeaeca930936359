"""`kvwire documents add`: files into the store of a cloud node, and what is told of each."""

import contextlib
import os
import shlex
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvwire.segment import SliceKind
from ops.commands.options import CLOUD_TOML, CloudConfigFile, Tenant, opened
from ops.output import Json, console, counting_progress, note, print_json, print_table, printable, reason_of

if TYPE_CHECKING:
    from cloud_node import CloudConfig
    from cloud_node.document_files import Meant
    from cloud_node.document_reader import DocumentInfo
    from ops.ingest import IngestOutcome
    from ops.sharer_window import SharerWindow

_NAMED = 5
"""Files that were left out, at most; --json has all."""

COLUMNS = ("id", "characters", "passages", "positions allowed", "kinds", "version")


def shown(document: "DocumentInfo") -> tuple[object, ...]:
    """A row of a table of documents."""
    positions = "policy" if document.max_positions is None else document.max_positions
    kinds = "policy" if document.kinds is None else ", ".join(document.kinds) or "none"
    return (
        document.id,
        f"{document.characters:,}",
        f"{document.passages:,}",
        positions,
        kinds,
        document.version[:12],
    )


def add(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Files, patterns in quotes, or folders, of which .txt, .md, .html, .pdf and .docx are meant; "
            "- reads standard input.",
        ),
    ],
    tenant: Tenant,
    config: CloudConfigFile = CLOUD_TOML,
    document_id: Annotated[
        str | None, typer.Option("--id", help="The id of a single file. [default: from its path]")
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            help="Of texts and pages, such as latin-1. [default: UTF-8, or UTF-16 with a byte order mark]"
        ),
    ] = None,
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
    positions_per_day: Annotated[
        int | None,
        typer.Option(
            min=0, help="Positions that one edge may have of it in a day; 0 leaves it to the policy."
        ),
    ] = None,
    questions_per_day: Annotated[
        int | None,
        typer.Option(min=0, help="Questions that one edge may ask in a day; 0 leaves it to the policy."),
    ] = None,
    new_positions_per_day: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Positions that one edge may have in a day and never had before; 0 leaves it to the policy.",
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Take the place of documents from elsewhere, and of their limits."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Store documents. A file that was added before is stored again if it has changed, within its old limits.

    What cannot be stored is told on standard error, a line each, and the exit code is 1; the rest is stored.
    """
    from cloud_node.document_files import left_out
    from ops.ingest import STDIN, Ingest, IngestOutcome
    from ops.sharer_window import sharer_window

    allowed = None if kinds is None else _kinds(kinds)
    if encoding is not None:
        _check_encoding(encoding)
    files, failed = _meant(paths)
    if document_id is None and any(str(file.path) == STDIN for file in files):
        raise typer.BadParameter("standard input needs one", param_hint="--id")
    if document_id is not None and len(files) > 1:
        raise typer.BadParameter(f"there are {len(files)} files", param_hint="--id")
    stored = []
    with opened(config) as (loaded, documents):
        window = sharer_window(loaded)
        ingest = Ingest(
            documents,
            tenant,
            encoding,
            max_positions,
            allowed,
            replace,
            window,
            positions_per_day,
            questions_per_day,
            new_positions_per_day,
            loaded.export.redact,
        )
        progress = counting_progress()
        bar = progress.add_task("adding documents", total=len(files))
        with (
            progress if len(files) > 1 else contextlib.nullcontext(),
            contextlib.closing(ingest(files, document_id)) as outcomes,
        ):
            for file, done in zip(files, outcomes, strict=True):
                if isinstance(done, Exception):
                    failed.append((str(file.path), done))
                else:
                    stored.append(done)
                progress.advance(bar)
    kept = _kept(loaded, window, stored)
    errors = [{"source": _in_utf8(name), "error": _reason(e)} for name, e in failed]
    others = [_in_utf8(file) for named in dict.fromkeys(paths) if named for file in left_out(named)]
    if as_json:
        documents_told = [
            {"outcome": outcome, **asdict(info), "tokens": tokens} for outcome, info, tokens in stored
        ]
        kept_told = None if kept is None else {"bytes": kept[0], "seconds": kept[1]}
        print_json({"documents": documents_told, "failed": errors, "left_out": others, "prefixes": kept_told})
    elif stored:
        rows = [
            (outcome, *shown(info)[:-1], "" if tokens is None else f"{tokens:,}")
            for outcome, info, tokens in stored
            if outcome is not IngestOutcome.UNCHANGED
        ]
        if rows:
            print_table(("outcome", *COLUMNS[:-1], "tokens"), rows)
        counts = Counter(str(outcome) for outcome, *_ in stored)
        console.print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()), highlight=False)
    if stored and window is None:
        note(
            f"whether {loaded.sharer.model} can read texts this long is not known: it is not on this machine"
        )
    for _, info, tokens in stored:
        if window is not None and tokens is not None and tokens > window.longest:
            note(
                f"{info.id}: {tokens:,} tokens are over {window.longest:,}, the most that this Sharer can read at "
                "once; ask about its passages, not the whole"
            )
    if kept is not None and kept[0] and not as_json:
        seconds = "" if kept[1] is None else f", in about {max(1, kept[1]):,.0f} s"
        note(
            f"a running cloud reads them while nobody asks, `kvwire documents warm` now{seconds}; at most "
            f"{kept[0] / 1e6:,.1f} MB on disk"
        )
    if others and not as_json:
        named = ", ".join([*map(printable, others[:_NAMED]), *(["..."] if others[_NAMED:] else [])])
        like = Path(others[0])
        pattern = printable(shlex.quote(f"{like.parent}/**/*{like.suffix or like.name}"))
        note(
            f"left out, as files of other endings: {len(others):,} ({named}); a pattern takes what is text of them, "
            f"as {pattern}"
        )
    for told in errors:
        sys.stderr.write(f"kvwire: {printable(told['source'])}: {printable(told['error'])}\n")
    if errors:
        raise typer.Exit(1)


def _kept(
    config: "CloudConfig",
    window: "SharerWindow | None",
    stored: "list[tuple[IngestOutcome, DocumentInfo, int | None]]",
) -> tuple[int, float | None] | None:
    """Bytes at most that K and V of these documents will have on disk, and seconds until they are read, where known."""
    files = config.prefix_files
    if files is None or window is None or window.token_bytes is None:
        return None
    tokens = sum(tokens for *_, tokens in stored if tokens is not None and tokens <= window.longest)
    rate = files.tokens_per_s
    return tokens * window.token_bytes, None if rate is None else round(tokens / rate, 1)


def _kinds(text: str) -> tuple[SliceKind, ...]:
    try:
        return tuple(SliceKind(word.strip()) for word in text.split(",") if word.strip())
    except ValueError as error:
        known = ", ".join(SliceKind)
        raise typer.BadParameter(f"{error}; there are {known}", param_hint="--kinds") from error


def _check_encoding(name: str) -> None:
    try:
        b"text".decode(name, "replace")
    except LookupError as error:
        raise typer.BadParameter(str(error), param_hint="--encoding") from error


def _meant(paths: list[str]) -> "tuple[list[Meant], list[tuple[str, Exception]]]":
    """The files that paths mean, and the paths that mean none with the reason."""
    from cloud_node.document_files import Meant, meant
    from ops.ingest import STDIN

    files: list[Meant] = []
    failed: list[tuple[str, Exception]] = []
    for named in dict.fromkeys(paths):
        try:
            files += [Meant(Path(STDIN), STDIN)] if named == STDIN else meant(named)
        except (OSError, ValueError) as error:
            failed.append((named, error))
    return files, failed


def _in_utf8(path: str | Path) -> str:
    return os.fsencode(path).decode(errors="replace")


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or reason_of(error)
