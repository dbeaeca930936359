"""`kvwire documents add|list|show|search|remove|grant|revoke|warm|exposure`: the documents that a cloud node holds."""

import contextlib
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ops.commands.documents_add import COLUMNS, add, shown
from ops.commands.documents_exposure import exposure
from ops.commands.options import CLOUD_TOML, AnyTenant, CloudConfigFile, Tenant, opened, tenant_of
from ops.output import (
    Json,
    console,
    counting_progress,
    note,
    print_json,
    print_mapping,
    print_table,
    printable,
)

if TYPE_CHECKING:
    from cloud_node.documents import Documents

app = typer.Typer(no_args_is_help=True, help="The documents that a cloud node holds.")

app.command()(add)


@app.command("list")
def list_documents(
    tenant: AnyTenant = None, config: CloudConfigFile = CLOUD_TOML, as_json: Json = False
) -> None:
    """List a tenant's documents, without their text."""
    with opened(config) as (_, documents):
        tenant = tenant_of(documents, tenant)
        found = documents.list(tenant)
    if as_json:
        print_json([asdict(document) for document in found])
    elif found:
        print_table(COLUMNS, [shown(document) for document in found])
    else:
        note(f"tenant {tenant} has no documents")


@app.command()
def show(
    document_id: Annotated[str, typer.Argument(metavar="ID", help="The document's id.")],
    tenant: AnyTenant = None,
    config: CloudConfigFile = CLOUD_TOML,
    as_json: Json = False,
) -> None:
    """What is known of a document, without its text."""
    from ops.sharer_window import sharer_window

    with opened(config) as (loaded, documents):
        tenant = tenant_of(documents, tenant)
        document = documents.get(tenant, document_id)
        (info,) = documents.find(tenant, [document_id])
        granted = documents.granted(tenant, document_id)
    window = sharer_window(loaded)
    tokens = None if window is None else window.tokens(document.text)
    if as_json:
        print_json(asdict(info) | {"tokens": tokens} | _granted(granted))
        return
    _, characters, passages, positions, kinds, version = shown(info)
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
    tenant: AnyTenant = None,
    config: CloudConfigFile = CLOUD_TOML,
    k: Annotated[int, typer.Option("-k", min=1, help="The most passages.")] = 5,
    with_text: Annotated[
        bool, typer.Option("--show", help="Print the passages' text: here, in the cloud.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find the passages of a tenant's documents that have a query's words."""
    with opened(config) as (_, documents):
        tenant = tenant_of(documents, tenant)
        found = [asdict(hit) for hit in documents.search(tenant, query, k)]
        if with_text:
            for hit in found:
                hit["text"] = documents.get(tenant, hit["document"]).text[hit["begins"] : hit["ends"]]
    if as_json:
        print_json(found)
        return
    if not found:
        note(f"no passage of tenant {tenant} has a word of it")
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
    config: CloudConfigFile = CLOUD_TOML,
    as_json: Json = False,
) -> None:
    """Forget documents: all of them, or none where one is missing."""
    with opened(config) as (_, documents):
        documents.remove(tenant, *document_ids)
    print_mapping({"removed": document_ids if as_json else ", ".join(document_ids)}, as_json)


@app.command()
def grant(
    document_id: Annotated[str, typer.Argument(metavar="ID", help="The document's id.")],
    tenant: Tenant,
    config: CloudConfigFile = CLOUD_TOML,
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
    with opened(config) as (loaded, documents):
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
        note(f"until now every edge of {tenant} could ask; now only those granted can ({again} undoes it)")


@app.command()
def revoke(
    document_id: Annotated[str, typer.Argument(metavar="ID", help="The document's id.")],
    tenant: Tenant,
    config: CloudConfigFile = CLOUD_TOML,
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
    with opened(config) as (_, documents):
        documents.revoke(tenant, document_id, *names)
        _print_granted(documents, tenant, document_id, as_json)


@app.command()
def warm(
    config: CloudConfigFile = CLOUD_TOML,
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
        note(f"{told['too_long']:,} are too long for any question about the whole of them")
    if told["no_room"]:
        note(f"for {told['no_room']:,} there is no room: raise [sharer] prefix_store_bytes, or free the disk")
    if told["failed"]:
        note(f"{told['failed']:,} could not be read; the log names the errors")
        raise typer.Exit(1)


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


app.command()(exposure)
