"""`kvwire certs`."""

from pathlib import Path
from typing import Annotated

import typer

from ops.output import Json, print_mapping


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
        made = {name: renew_certificate(directory, name, host, days).certificate for name in renew}
        print_mapping(made, as_json)
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
    paths = {"authority": found.ca.certificate, "cloud": found.cloud.certificate}
    wanted = [f"{name}/{one}" for name in tenants for one in names] or tenants
    print_mapping(paths | {f"edge {name}": found.edges[name].certificate for name in wanted}, as_json)
