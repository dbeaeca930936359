"""`kvwire certs`."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.output import Json, note, print_json, print_mapping

if TYPE_CHECKING:
    from ops.certs import KeyPair


def certs(
    directory: Annotated[Path, typer.Argument(help="Where the certificates and keys are.")],
    tenant: Annotated[
        list[str] | None, typer.Option(help="A tenant to make an edge's certificate for; repeat for more.")
    ] = None,
    edge: Annotated[
        list[str] | None, typer.Option(help="Name of an edge of the one tenant; repeat for more.")
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address of the cloud; repeat for more. [default: loopback]"),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(min=1, help="How long they are valid. [default: 30, and 1,825 with --renew authority]"),
    ] = None,
    authority_days: Annotated[int, typer.Option(min=1, help="How long a new authority is valid.")] = 1_825,
    renew: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Make one anew: cloud, TENANT, TENANT/EDGE or authority; repeat for more."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make everything anew, the authority too.")] = False,
    as_json: Json = False,
) -> None:
    """Make development certificates: an authority, the cloud's, and one for each edge. What is there stays."""
    from ops.certs import LEAF_DAYS, make_certificates, renew_certificate

    if bool(renew) == bool(tenant) or (renew and (edge or force)):
        raise typer.BadParameter("either add edges, with --tenant, or --renew what is there")
    if renew:
        made = {name: renew_certificate(directory, name, host, days) for name in renew}
        _tell(directory, made, renew, as_json)
        return
    tenants, names = tenant or [], edge or []
    if names and len(tenants) != 1:
        raise typer.BadParameter("edges with names are of one --tenant", param_hint="--edge")
    found = make_certificates(
        directory,
        tenants,
        host or ("127.0.0.1", "localhost"),
        days or LEAF_DAYS,
        force,
        authority_days,
        names,
    )
    pairs = {"authority": found.ca, "cloud": found.cloud}
    wanted = [f"{name}/{one}" for name in tenants for one in names] or tenants
    pairs |= {f"edge {name}": found.edges[name] for name in wanted}
    _tell(directory, pairs, ["cloud", *wanted], as_json)


def _tell(directory: Path, pairs: "Mapping[str, KeyPair]", names: list[str], as_json: bool) -> None:
    """Where certificates are, until when they are valid, and how those of `names` are made anew."""
    ends = {name: pair.valid_until for name, pair in pairs.items()}
    if as_json:
        told = {name: {"certificate": str(pair.certificate)} for name, pair in pairs.items()}
        print_json({name: one | {"valid_until": ends[name].isoformat()} for name, one in told.items()})
        return
    rows = {name: f"{pair.certificate}, valid until {ends[name]:%Y-%m-%d}" for name, pair in pairs.items()}
    print_mapping(rows, as_json=False)
    again = ["kvwire", "certs", str(directory), *(f"--renew={name}" for name in names)]
    note(
        f"before then: `{shlex.join(again)}`, and copy an edge's to it; running nodes take them without a restart"
    )
