"""Options that several commands have alike: who plays, whose documents, and where a report goes"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from fuser.models.load import DeviceName, DtypeName
from kvwire.identity import PeerRole

if TYPE_CHECKING:
    from cloud_node import CloudConfig
    from cloud_node.documents import Documents
    from fuser.lab.evaluate.settings import Setup

Told = TypeVar("Told")

SharerOption = Annotated[
    str | None, typer.Option("--sharer", help="Another Sharer: known name, id or directory.")
]
ReceiverOption = Annotated[str | None, typer.Option("--receiver", help="Another Receiver.")]


def found_bundle(name: str) -> Path:
    """The directory of a bundle, by its path or the name of one that ships; another name is wrong use."""
    from fuser.models.directory import bundle_directory, shipped_bundles

    directory = bundle_directory(name)
    if not directory.is_dir():
        known = ", ".join(shipped_bundles())
        raise typer.BadParameter(f"{name!r} is no directory, and no bundle that ships ({known})")
    return directory


BundleArgument = Annotated[
    Path,
    typer.Argument(
        help="A bundle's directory, or the name of one that ships.", metavar="BUNDLE", parser=found_bundle
    ),
]
BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        help="A bundle for the pair: directory, or name of one that ships. [default: the demo's]",
        metavar="BUNDLE",
        parser=found_bundle,
    ),
]

DeviceOption = Annotated[
    DeviceName,
    typer.Option("--device", help="Where models compute; auto is a GPU where there is one, else the CPU."),
]
DtypeOption = Annotated[
    DtypeName,
    typer.Option(
        "--dtype",
        help="What models compute in; auto is bfloat16 where the device multiplies it, else float32.",
    ),
]
OtherDevice = Annotated[
    DeviceName | None,
    typer.Option("--device", help="Where the model computes, in place of the configured device."),
]
OtherDtype = Annotated[
    DtypeName | None,
    typer.Option("--dtype", help="What the model computes in, in place of the configured dtype."),
]


def _node_file(role: PeerRole, help: str) -> Any:
    """The option --config of a command that runs on one side; the other side's file is refused by its kind."""

    def of_role(context: typer.Context, path: Path | None) -> Path | None:
        from ops.node_check import role_of

        if path is None:
            return None
        try:
            found = role_of(path)
        except (ValueError, OSError):  # whoever loads it says what is wrong
            return path
        if found is not role:
            raise typer.BadParameter(
                f"{path} is the {found}'s, which `kvwire {found} --config {path}` runs; "
                f"`{context.command_path}` takes the {role}'s"
            )
        return path

    return typer.Option("--config", help=help, exists=True, dir_okay=False, callback=of_role)


CloudFile = _node_file(PeerRole.CLOUD, "The cloud's configuration, a cloud.toml.")
CloudConfigFile = Annotated[Path, CloudFile]
CLOUD_TOML = Path("cloud.toml")
Tenant = Annotated[str, typer.Option(help="Whose documents.")]
AnyTenant = Annotated[
    str | None, typer.Option("--tenant", help="Whose documents. [default: of the one tenant that has any]")
]
EdgeFile = _node_file(PeerRole.EDGE, "The edge's configuration, an edge.toml.")

UserTokenFile = Annotated[
    Path | None,
    typer.Option(
        help="A file with the JSON Web Token of the user who asks, read for each question.",
        metavar="FILE",
        exists=True,
        dir_okay=False,
    ),
]

_OUT = "Output"
JsonOut = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="OUT", help="Write the whole report here; - prints.", rich_help_panel=_OUT
    ),
]
MarkdownOut = Annotated[
    Path | None, typer.Option("--markdown", help="Write the table here.", rich_help_panel=_OUT)
]
PlotOut = Annotated[
    Path | None, typer.Option("--plot", help="Draw it here: .png, .svg or .pdf.", rich_help_panel=_OUT)
]

SettingsArgument = Annotated[
    Path | None,
    typer.Argument(
        help="Its settings as TOML. [default: none]", metavar="CONFIG", exists=True, dir_okay=False
    ),
]
Values = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Another value for a key, written with dots; a list as words with commas between.",
    ),
]
MaxMinutes = Annotated[
    float, typer.Option(min=0.0, help="Stop after so long; the same call goes on. [default: no limit]")
]


@contextlib.contextmanager
def opened(config: Path) -> "Iterator[tuple[CloudConfig, Documents]]":
    """A cloud's configuration, and its store of documents while the context lasts."""
    from cloud_node import CloudConfig
    from cloud_node.documents import Documents

    loaded = CloudConfig.load(config)
    documents = Documents(loaded.documents, loaded.prefix_files)
    try:
        yield loaded, documents
    finally:
        documents.close()


def tenant_of(documents: "Documents", tenant: str | None) -> str:
    """The tenant that was named, or the only one that has documents.

    Raises:
        ValueError: none was named, and there are several, or none.
    """
    there = documents.tenants() if tenant is None else [tenant]
    if len(there) != 1:
        raise ValueError(
            f"say whose: --tenant {' or '.join(there)}" if there else "there are no documents yet"
        )
    return there[0]


Placed = TypeVar("Placed")


def placed(table: Placed, device: DeviceName | None, dtype: DtypeName | None) -> Placed:
    """A configuration's table with the device and the dtype of the command line, where these are given."""
    given = {"device": device, "dtype": dtype}
    return replace(table, **{name: value for name, value in given.items() if value is not None})  # type: ignore[type-var]


def told_and_fetched(
    kind: type[Told], bundle: Path, config: Path | None, values: list[str] | None, plot: Path | None
) -> "tuple[Told, Setup]":
    """What a command that measures a bundle is told, checked before its models are fetched.

    Raises:
        BadConfig: as `fuser.lab.evaluate.settings.read_settings`.
        RuntimeError, ValueError: as `fuser.lab.evaluate.picture.check`, where there is to be a picture.
        BadBundle, and what `ops.models.fetch.bring_pair` raises.
    """
    from fuser.lab.evaluate.picture import check
    from fuser.lab.evaluate.settings import read_settings
    from ops.models.fetch import bring_pair

    if plot is not None:
        check(plot)
    told, setup = read_settings(kind, config, values or ())
    bring_pair(bundle, setup.sharer or None, setup.receiver or None)
    return told, setup
