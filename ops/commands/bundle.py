"""`kvwire bundle info|import|confidence`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ops.commands.options import BundleArgument
from ops.output import Json, print_json, print_mapping, print_table, progress_console

if TYPE_CHECKING:
    from fuser.bundle.bundle import Bundle

app = typer.Typer(no_args_is_help=True, help="Bundles: what was trained for a pair.")


@app.command()
def info(
    directory: BundleArgument,
    as_json: Json = False,
) -> None:
    """Say what a bundle was made for, what it can do, and its hash."""
    from fuser.bundle.bundle import Bundle

    bundle = Bundle.load(directory)
    config = bundle.config
    print_mapping(
        {
            "hash": bundle.hash,
            "sharer": str(config.sharer),
            "receiver": str(config.receiver),
            "slices": ", ".join(sorted(bundle.kinds)),
            "codecs": ", ".join(codec.name for codec in bundle.codecs()),
            "parameters": bundle.parameter_count,
            "bytes": sum(file.stat().st_size for file in directory.iterdir() if file.is_file()),
        },
        as_json,
    )


@app.command("import")
def import_(
    directory: Annotated[
        Path,
        typer.Argument(help="A public checkpoint: projector_*.pt and .json.", exists=True, file_okay=False),
    ],
    output: Annotated[Path, typer.Argument(help="Where the bundle goes.", file_okay=False)],
    receiver: Annotated[
        str, typer.Option(help="The Receiver: a directory, a known name or a Hugging Face id.")
    ],
    sharer: Annotated[str, typer.Option(help="The Sharer, likewise.")],
    alignment: Annotated[
        Literal["same", "first", "longest"] | None,
        typer.Option(help="Of tokens; if not given, what the checkpoint's config.json says, else same."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            help="Golden safetensors: compare the bundle with the public code's outputs.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="Largest absolute error of a check.")] = 1e-5,
    as_json: Annotated[
        str | None, typer.Option("--json", help="Write JSON to this file; - prints it.")
    ] = None,
) -> None:
    """Turn a public Cache-to-Cache checkpoint into a bundle; a check that fails ends with exit code 1."""
    from fuser.bundle.bundle import Bundle
    from fuser.heads.c2c import C2CConfig
    from fuser.lab.c2c.bundle import bundle_of_public, save_exactly
    from ops.models.fetch import resolve

    ours, theirs = resolve(receiver), resolve(sharer)
    with progress_console.status("reading the checkpoint"):
        bundle = bundle_of_public(directory, ours, theirs, alignment)
        saved = save_exactly(bundle, output)
    fuse = bundle.config.fuse
    assert isinstance(fuse, C2CConfig)
    report: dict[str, Any] = {"bundle": saved, "output": str(output), "alignment": fuse.alignment}
    if fuse.alignment != "same":
        progress_console.print(
            f"Trained with the alignment {fuse.alignment}; the service aligns by characters instead: "
            "see docs/public_checkpoints.md.",
            markup=False,
        )
    if check is not None:
        with progress_console.status("comparing with the public code's outputs"):
            report = _checked(Bundle.load(output), check, ours, theirs) | report
    _show(report, as_json)
    if check is not None:
        close = report["max_abs_error"] <= tolerance
        if not (close and report.get("tokens_equal", True)):
            raise typer.Exit(1)


@app.command()
def confidence(
    directory: BundleArgument,
    reports: Annotated[
        list[Path],
        typer.Argument(
            help="JSON of `kvwire eval` over training questions, of this bundle: answers behind slices, strangers' "
            "slices beside them, questions without an answer.",
            exists=True,
            dir_okay=False,
        ),
    ],
    most_lost: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Share of questions whose right answer the threshold may withhold."
        ),
    ] = 0.02,
    as_json: Json = False,
) -> None:
    """Fit how likely an answer is right by the Receiver's own probabilities, and keep it in the bundle's config.json.

    The bundle stays what it is, with its hash: what is kept is read at the edge alone.
    """
    from fuser.config import to_dict
    from fuser.lab.evaluate.confidence import fitted_from, keep

    found = fitted_from(directory, reports, most_lost)
    keep(directory, found)
    told = {
        f"{kind} {name}": value
        for kind, one in found.items()
        for name, value in (
            {**one.weights, "bias": one.bias, "least_confidence": one.least_confidence}
        ).items()
    }
    print_mapping(to_dict(found) if as_json else told, as_json)


def _checked(bundle: "Bundle", golden: Path, receiver: Path, sharer: Path) -> dict[str, Any]:
    """Errors per layer, and whether the tokens are equal where the file has any."""
    from fuser.lab.c2c.check import GoldenFile

    file = GoldenFile(golden)
    errors = list(file.layer_errors(bundle.require_fuse()))
    layers = [
        {"layer": one.layer, "key": one.key, "value": one.value, "max_abs_error": one.max_abs_error}
        for one in errors
    ]
    report: dict[str, Any] = {"layers": layers, "max_abs_error": max(one.max_abs_error for one in errors)}
    if file.has_tokens:
        like = file.tokens_like(bundle, receiver, sharer)
        report |= {"tokens_equal": like is not None, "tokens_like": like}
    return report


def _show(report: dict[str, Any], as_json: str | None) -> None:
    if as_json == "-":
        print_json(report)
        return
    if as_json is not None:
        Path(as_json).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if "layers" in report:
        rows = [
            (one["layer"], *(f"{one[name]:.1e}" for name in ("key", "value", "max_abs_error")))
            for one in report["layers"]
        ]
        print_table(("layer", "key", "value", "largest error"), rows)
    print_mapping({name: value for name, value in report.items() if name != "layers"}, False)
