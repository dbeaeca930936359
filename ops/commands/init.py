"""`kvwire init cloud|edge`: an example configuration with comments, to start from."""

from pathlib import Path
from typing import Annotated

import typer

from ops.commands.options import BundleOption
from ops.output import Json, print_mapping

app = typer.Typer(no_args_is_help=True, help="Write an example configuration with comments.")

Directory = Annotated[
    Path, typer.Option("--directory", help="Where it is written; made if absent.", file_okay=False)
]
Tenant = Annotated[str, typer.Option(help="The edge that certificates are made for.")]


@app.command()
def cloud(
    directory: Directory = Path(),
    tenant: Tenant = "acme",
    host: Annotated[str, typer.Option(help="Name or address of this machine.")] = "127.0.0.1",
    bundle: BundleOption = None,
    as_json: Json = False,
) -> None:
    """Write cloud.toml, for the shipped demo pair or that of --bundle. Nothing that is there is replaced."""
    _write(directory / "cloud.toml", {"tenant": tenant, "host": host}, bundle, as_json)


@app.command()
def edge(
    directory: Directory = Path(),
    tenant: Tenant = "acme",
    address: Annotated[
        str, typer.Option("--cloud", metavar="HOST:PORT", help="Where the cloud listens.")
    ] = "127.0.0.1:7443",
    bundle: BundleOption = None,
    as_json: Json = False,
) -> None:
    """Write edge.toml, for the shipped demo pair or that of --bundle. Nothing that is there is replaced."""
    from edge_node.config import split_address

    split_address(address)
    host, _, port = address.rpartition(":")
    _write(directory / "edge.toml", {"tenant": tenant, "host": host, "port": port}, bundle, as_json)


def example(name: str, values: dict[str, str]) -> str:
    """An example configuration, with values for the words in braces that stand in it."""
    text = (Path(__file__).parent.parent / "examples" / name).read_text(encoding="utf-8")
    for word, value in values.items():
        text = text.replace(f"{{{word}}}", value)
    return text


def _write(path: Path, values: dict[str, str], bundle: Path | None, as_json: bool) -> None:
    values |= _pair(bundle)
    text = example(path.name, values)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    print_mapping({"written": str(path)}, as_json)


def _pair(bundle: Path | None) -> dict[str, str]:
    """The names that stand in the examples: those of the demo's pair, or of the one that a bundle is for."""
    from fuser.bundle import shipped_bundles
    from fuser.bundle.plans import PLANS_FILE
    from ops.demo import pair

    if bundle is None:
        named = {"sharer": pair.SHARER, "receiver": pair.RECEIVER, "bundle": pair.BUNDLE.name}
        return named | {"plan": "auto"}
    models = dict(zip(("sharer", "receiver"), pair.models_of(bundle), strict=True))
    ships = shipped_bundles().get(bundle.name) == bundle
    plan = (
        "auto" if (bundle / PLANS_FILE).exists() else "codec"
    )  # without a table there is nothing to pick from
    return models | {"bundle": bundle.name if ships else str(bundle.resolve()), "plan": plan}
