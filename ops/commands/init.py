"""`kvwire init cloud|edge`: an example configuration with comments, to start from."""

from pathlib import Path
from typing import Annotated, Final

import typer

from ops.commands.options import found_bundle
from ops.output import Json, print_mapping

PAIR: Final = Path("qwen2.5-coder-1.5b--qwen2.5-coder-0.5b")
"""The bundle that documents of one's own are asked about with, if another is not named."""

app = typer.Typer(no_args_is_help=True, help="Write an example configuration with comments.")

Directory = Annotated[
    Path, typer.Option("--directory", help="Where it is written; made if absent.", file_okay=False)
]
Tenant = Annotated[str, typer.Option(help="The edge that certificates are made for.")]
OfPair = Annotated[
    Path,
    typer.Option(
        "--bundle",
        help="A bundle for the pair, the same on both sides: directory, or name of one that ships.",
        metavar="BUNDLE",
        parser=found_bundle,
    ),
]


@app.command()
def cloud(
    directory: Directory = Path(),
    tenant: Tenant = "acme",
    host: Annotated[str, typer.Option(help="Name or address of this machine.")] = "127.0.0.1",
    bundle: OfPair = PAIR,
    as_json: Json = False,
) -> None:
    """Write cloud.toml, for the pair of --bundle. Nothing that is there is replaced."""
    _write(directory / "cloud.toml", {"tenant": tenant, "host": host}, bundle, as_json)


@app.command()
def edge(
    directory: Directory = Path(),
    tenant: Tenant = "acme",
    address: Annotated[
        str, typer.Option("--cloud", metavar="HOST:PORT", help="Where the cloud listens.")
    ] = "127.0.0.1:7443",
    bundle: OfPair = PAIR,
    as_json: Json = False,
) -> None:
    """Write edge.toml, for the pair of --bundle. Nothing that is there is replaced."""
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


def _write(path: Path, values: dict[str, str], bundle: Path, as_json: bool) -> None:
    values |= _pair(bundle)
    text = example(path.name, values)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise FileExistsError(f"{path} is there already; --directory names another place") from None
    print_mapping({"written": str(path)}, as_json)


def _pair(bundle: Path) -> dict[str, str]:
    """The names that stand in the examples: those of the models that a bundle is for, and its own."""
    from fuser.bundle.plans import PLANS_FILE
    from fuser.models.directory import shipped_bundles
    from ops.demo.pair import models_of

    sharer, receiver = models_of(bundle)
    ships = shipped_bundles().get(bundle.name) == bundle
    return {
        "sharer": sharer,
        "receiver": receiver,
        "bundle": bundle.name if ships else str(bundle.resolve()),
        # Without a table there is nothing to pick from.
        "plan": "auto" if (bundle / PLANS_FILE).exists() else "codec",
    }
