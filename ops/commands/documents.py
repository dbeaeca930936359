"""`kvwire documents add|list|show|search|remove|grant|revoke|warm|exposure`: the documents that a cloud node holds."""

import contextlib
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvwire.segment import SliceKind
from ops.commands.options import CloudFile
from ops.output import (
    Json,
    console,
    counting_progress,
    print_json,
    print_mapping,
    print_table,
    printable,
    progress_console,
    reason_of,
)

if TYPE_CHECKING:
    from rich.text import Text

    from cloud_node import CloudConfig
    from cloud_node.document_files import Meant
    from cloud_node.document_reader import DocumentInfo
    from cloud_node.documents import Documents
    from ops.ingest import IngestOutcome
    from ops.sharer_window import SharerWindow

app = typer.Typer(no_args_is_help=True, help="The documents that a cloud node holds.")

Config = Annotated[Path, CloudFile]
CLOUD_TOML = Path("cloud.toml")
Tenant = Annotated[str, typer.Option(help="Whose documents.")]


@app.command()
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
    config: Config = CLOUD_TOML,
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
    with _opened(config) as (loaded, documents):
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
            (outcome, *_shown(info)[:-1], "" if tokens is None else f"{tokens:,}")
            for outcome, info, tokens in stored
            if outcome is not IngestOutcome.UNCHANGED
        ]
        if rows:
            print_table(("outcome", *_COLUMNS[:-1], "tokens"), rows)
        counts = Counter(str(outcome) for outcome, *_ in stored)
        console.print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()), highlight=False)
    if stored and window is None:
        _note(
            f"whether {loaded.sharer.model} can read texts this long is not known: it is not on this machine"
        )
    for _, info, tokens in stored:
        if window is not None and tokens is not None and tokens > window.longest:
            _note(
                f"{info.id}: {tokens:,} tokens are over {window.longest:,}, the most that this Sharer can read at "
                "once; ask about its passages, not the whole"
            )
    if kept is not None and kept[0] and not as_json:
        seconds = "" if kept[1] is None else f", in about {max(1, kept[1]):,.0f} s"
        _note(
            f"a running cloud reads them while nobody asks, `kvwire documents warm` now{seconds}; at most "
            f"{kept[0] / 1e6:,.1f} MB on disk"
        )
    if others and not as_json:
        named = ", ".join([*map(printable, others[:_NAMED]), *(["..."] if others[_NAMED:] else [])])
        like = Path(others[0])
        pattern = printable(shlex.quote(f"{like.parent}/**/*{like.suffix or like.name}"))
        _note(
            f"left out, as files of other endings: {len(others):,} ({named}); a pattern takes what is text of them, "
            f"as {pattern}"
        )
    for told in errors:
        sys.stderr.write(f"kvwire: {printable(told['source'])}: {printable(told['error'])}\n")
    if errors:
        raise typer.Exit(1)


@app.command("list")
def list_documents(tenant: Tenant, config: Config = CLOUD_TOML, as_json: Json = False) -> None:
    """List a tenant's documents, without their text."""
    with _opened(config) as (_, documents):
        found = documents.list(tenant)
    if as_json:
        print_json([asdict(document) for document in found])
    elif found:
        print_table(_COLUMNS, [_shown(document) for document in found])
    else:
        _note(f"tenant {tenant} has no documents")


@app.command()
def show(
    document_id: Annotated[str, typer.Argument(metavar="ID", help="The document's id.")],
    tenant: Tenant,
    config: Config = CLOUD_TOML,
    as_json: Json = False,
) -> None:
    """What is known of a document, without its text."""
    from ops.sharer_window import sharer_window

    with _opened(config) as (loaded, documents):
        document = documents.get(tenant, document_id)
        (info,) = documents.find(tenant, [document_id])
        granted = documents.granted(tenant, document_id)
    window = sharer_window(loaded)
    tokens = None if window is None else window.tokens(document.text)
    if as_json:
        print_json(asdict(info) | {"tokens": tokens} | _granted(granted))
        return
    _, characters, passages, positions, kinds, version = _shown(info)
    values = {
        "id": info.id,
        "characters": characters,
        "tokens": f"not known: {loaded.sharer.model} is not on this machine"
        if tokens is None
        else f"{tokens:,}",
        "passages": passages,
        "positions allowed": positions,
        "positions a day": info.positions_per_day or "policy",
        "questions a day": info.questions_per_day or "policy",
        "new positions a day": info.new_positions_per_day or "policy",
        "kinds": kinds,
        "may ask": _who(tenant, granted),
        "version": version,
        "added": "" if info.added is None else info.added.isoformat(timespec="seconds"),
        "source": printable(info.source or "not a file"),
    }
    print_mapping(values, as_json=False)


@app.command()
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Words; there are no operators.")],
    tenant: Tenant,
    config: Config = CLOUD_TOML,
    k: Annotated[int, typer.Option("-k", min=1, help="The most passages.")] = 5,
    with_text: Annotated[
        bool, typer.Option("--show", help="Print the passages' text: here, in the cloud.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find the passages of a tenant's documents that have a query's words."""
    with _opened(config) as (_, documents):
        found = [asdict(hit) for hit in documents.search(tenant, query, k)]
        if with_text:
            for hit in found:
                hit["text"] = documents.get(tenant, hit["document"]).text[hit["begins"] : hit["ends"]]
    if as_json:
        print_json(found)
        return
    if not found:
        _note(f"no passage of tenant {tenant} has a word of it")
        return
    columns = ("score", "document", "passage", "characters")
    rows = [
        (f"{hit['score']:.3g}", hit["document"], hit["passage"], f"{hit['begins']:,} to {hit['ends']:,}")
        for hit in found
    ]
    print_table(columns, rows)
    for hit in found if with_text else ():
        text = printable(hit["text"].strip(), "\n\t")
        console.print(f"\n{hit['document']}, passage {hit['passage']}:\n{text}", highlight=False)


@app.command()
def remove(
    document_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The documents' ids.")],
    tenant: Tenant,
    config: Config = CLOUD_TOML,
    as_json: Json = False,
) -> None:
    """Forget documents: all of them, or none where one is missing."""
    with _opened(config) as (_, documents):
        documents.remove(tenant, *document_ids)
    print_mapping({"removed": document_ids if as_json else ", ".join(document_ids)}, as_json)


@app.command()
def grant(
    document_id: Annotated[str, typer.Argument(metavar="ID", help="The document's id.")],
    tenant: Tenant,
    config: Config = CLOUD_TOML,
    to: Annotated[
        list[str] | None,
        typer.Option(metavar="IDENTITY", help="SPIFFE id of an edge of the tenant; repeat for more."),
    ] = None,
    user: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="User behind whichever edge, as tokens name it; repeat for more."),
    ] = None,
    everybody: Annotated[bool, typer.Option("--everybody", help="Let the whole tenant ask again.")] = False,
    as_json: Json = False,
) -> None:
    """Let some edges of the tenant, and users, ask about a document, and no others; `revoke` takes that back."""
    names = _names(to, user)
    if everybody == bool(names):
        raise typer.BadParameter("say who, or --everybody", param_hint="--to or --user")
    with _opened(config) as (loaded, documents):
        if user and loaded.users.jwks is None:
            raise ValueError(
                f"{config} knows no users, so nobody could ask: set jwks and audience of [users] first"
            )
        was_open = documents.granted(tenant, document_id) is None
        if everybody:
            documents.open_to_all(tenant, document_id)
        else:
            documents.grant(tenant, document_id, *names)
        _print_granted(documents, tenant, document_id, as_json)
    if was_open and not everybody:
        again = shlex.join(("kvwire", "documents", "grant", document_id, "--everybody", "--tenant", tenant))
        _note(f"until now every edge of {tenant} could ask; now only those granted can ({again} undoes it)")


@app.command()
def revoke(
    document_id: Annotated[str, typer.Argument(metavar="ID", help="The document's id.")],
    tenant: Tenant,
    config: Config = CLOUD_TOML,
    of: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="IDENTITY", help="SPIFFE id that was granted it; repeat for more."),
    ] = None,
    user: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="User that was granted it; repeat for more."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take back what `grant` gave. With nobody left nobody may ask, until `grant` says who, or --everybody."""
    names = _names(of, user)
    if not names:
        raise typer.BadParameter("say whose", param_hint="--from or --user")
    with _opened(config) as (_, documents):
        documents.revoke(tenant, document_id, *names)
        _print_granted(documents, tenant, document_id, as_json)


@app.command()
def warm(
    config: Config = CLOUD_TOML,
    tenant: Annotated[str | None, typer.Option(help="Whose documents. [default: everybody's]")] = None,
    as_json: Json = False,
) -> None:
    """Read documents before they are asked about, so that the first question over one need not wait for that.

    Loads the Sharer in this process. A running cloud does the same by itself while nobody asks it anything.
    """
    from dataclasses import replace

    from cloud_node import CloudConfig
    from ops.commands.nodes import here
    from ops.warm import warm as read

    loaded = CloudConfig.load(config)
    loaded = replace(loaded, sharer=here(loaded.sharer))
    progress = counting_progress()
    bar = progress.add_task("reading documents", total=None)
    with contextlib.ExitStack() as shown:

        def begin(total: int) -> None:
            progress.reset(bar, total=total)
            shown.enter_context(progress)

        told = read(loaded, tenant, begin, lambda: progress.advance(bar))
    if as_json:
        print_json(told)
        return
    console.print(
        f"{told['read']:,} documents read, {told['there']:,} were; {told['bytes'] / 1e6:,.1f} MB on disk",
        highlight=False,
    )
    if told["too_long"]:
        _note(f"{told['too_long']:,} are too long for any question about the whole of them")
    if told["no_room"]:
        _note(
            f"for {told['no_room']:,} there is no room: raise [sharer] prefix_store_bytes, or free the disk"
        )
    if told["failed"]:
        _note(f"{told['failed']:,} could not be read; the log names the errors")
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


def _names(identities: list[str] | None, users: list[str] | None) -> list[str]:
    """As the store has them."""
    from cloud_node.users import named_user

    return [*(identities or ()), *map(named_user, users or ())]


def _print_granted(documents: "Documents", tenant: str, document_id: str, as_json: bool) -> None:
    granted = documents.granted(tenant, document_id)
    if as_json:
        print_json({"id": document_id} | _granted(granted))
        return
    print_mapping({"id": document_id, "may ask": _who(tenant, granted)}, as_json=False)


def _granted(granted: "tuple[str, ...] | None") -> dict[str, object]:
    """Who may ask about a document, as JSON: everybody, or those who are listed."""
    return {"everybody": granted is None, "granted": list(granted or ())}


def _who(tenant: str, granted: "tuple[str, ...] | None") -> str:
    """Who may ask about a document, in words."""
    return f"every edge of {tenant}" if granted is None else ", ".join(granted) or "nobody"


@app.command()
def exposure(
    document_id: Annotated[str, typer.Argument(metavar="ID", help="Its id, also of one that was removed.")],
    tenant: Tenant,
    config: Config = CLOUD_TOML,
    with_text: Annotated[
        bool, typer.Option("--show", help="Print the text, what was quoted marked: here, in the cloud.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What has left of a document, by day (UTC) and who asked."""
    from cloud_node.users import is_user
    from kvwire.errors import NotFound

    with _opened(config) as (_, documents):
        days, quotes = documents.exposure(tenant, document_id)
        try:
            text = documents.get(tenant, document_id).text
        except NotFound:
            if not days:
                raise
            text = ""
    spans = [(begins, ends) for one in quotes for begins, ends, _ in one.spans]
    shown = _times(len(text), [span for one in quotes if not is_user(one.identity) for span in one.spans])
    quoted = sum(times > 0 for times in shown)
    if as_json:
        by_identity = [
            {"identity": one.identity, "positions": len(one.spans), "spans": one.spans} for one in quotes
        ]
        told = {"id": document_id, "days": [asdict(day) for day in days], "quoted": by_identity}
        print_json(told | {"characters": len(text), "characters_quoted": quoted})
        return
    if not days:
        _note(f"nothing has left of {document_id}")
        return
    rows = [
        (day.day, day.identity, f"{day.questions:,}", f"{day.positions:,}", f"{day.new_positions:,}")
        for day in days
    ]
    print_table(("day", "identity", "questions", "positions", "new"), rows)
    if not text:
        _note(f"{document_id} is removed; where in its text these stood is not kept")
        return
    console.print(
        f"{len(set(spans)):,} different positions were quoted, {quoted:,} of {len(text):,} characters",
        highlight=False,
    )
    if with_text:
        console.print(_heat(text, shown), soft_wrap=not console.is_terminal)


def _times(length: int, spans: "list[tuple[int, int, int]]") -> list[int]:
    """How often each character of a text was in a position that left."""
    times = [0] * length
    for begins, ends, count in spans:
        for at in range(begins, min(ends, length)):
            times[at] += count
    return times


def _heat(text: str, times: list[int]) -> "Text":
    """The text, darker where it left oftener, or where no colours are shown in brackets behind how often; control
    characters, and there brackets of its own, as they would be in Python."""
    from itertools import groupby

    from rich.text import Text

    shown, at = Text(), 0
    plain_text = console.no_color or console.color_system is None
    for count, run in groupby(times):
        length = len(list(run))
        style = _HEAT[min(count.bit_length(), len(_HEAT) - 1)]
        piece = text[at : at + length]
        plain = printable(piece, "\n\t")
        if plain_text:
            plain = plain.replace("[[", r"\x5b\x5b").replace("]]", r"\x5d\x5d")
        shown.append(f"[[{count}:{plain}]]" if count and plain_text else plain, style)
        at += length
    return shown


_HEAT = ("", "black on yellow", "black on dark_orange", "white on red", "bold white on dark_red")
"""Never, once, two and three times, four to seven, oftener."""

_NAMED = 5
"""Files that were left out, at most; --json has all."""

_COLUMNS = ("id", "characters", "passages", "positions allowed", "kinds", "version")


def _shown(document: "DocumentInfo") -> tuple[object, ...]:
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


def _note(text: str) -> None:
    progress_console.print(text, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _opened(config: Path) -> "Iterator[tuple[CloudConfig, Documents]]":
    from cloud_node import CloudConfig
    from cloud_node.documents import Documents

    loaded = CloudConfig.load(config)
    documents = Documents(loaded.documents, loaded.prefix_files)
    try:
        yield loaded, documents
    finally:
        documents.close()
