"""`kvwire models`: list, fetch and find the real models."""

from typing import Annotated, Any

import typer

from ops.output import Json, console, print_json, print_table

DEMO_PAIR = ("qwen2.5-coder-0.5b-instruct", "smollm2-135m-instruct")

app = typer.Typer(no_args_is_help=True, help="The real models: what is known, fetch one, where it is.")

Name = Annotated[str, typer.Argument(help="A known name (see list), a Hugging Face id, or a directory.")]


@app.command("list")
def list_models(json: Json = False) -> None:
    """The models known by name, and which of them are on this machine."""
    from ops.models.registry import KNOWN_MODELS

    rows = [_describe(name) for name in KNOWN_MODELS]
    if json:
        print_json(rows)
        return
    columns = ("name", "size", "download", "licence", "here")
    cells = [
        (
            row["name"],
            f"{row['parameters'] / 1e6:.0f}M",
            f"{row['bytes'] / 1e6:.0f} MB",
            row["licence"],
            "yes" if row["path"] else "no",
        )
        for row in rows
    ]
    print_table(columns, cells)


@app.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Known names or Hugging Face ids; the demo pair if none.")
    ] = None,
    json: Json = False,
) -> None:
    """Bring models onto this machine, checked by hash and converted once."""
    from fuser.models.directory import model_ref
    from ops.models.fetch import resolve

    done: list[dict[str, Any]] = []
    for name in names or DEMO_PAIR:
        path = resolve(name)
        reference = model_ref(path)
        done.append({"name": reference.name, "revision": reference.revision, "path": str(path)})
        if not json:
            console.print(f"{reference.name}  {path}", markup=False, highlight=False, soft_wrap=True)
    if json:
        print_json(done)


@app.command()
def path(name: Name, json: Json = False) -> None:
    """Print the directory of a model that is on this machine; fetches nothing."""
    from ops.models.fetch import find

    found = find(name)
    if json:
        print_json({"name": name, "path": str(found)})
    else:
        console.print(str(found), markup=False, highlight=False, soft_wrap=True)


def _describe(name: str) -> dict[str, Any]:
    from fuser.models.directory import model_directory
    from ops.models.fetch import is_ready
    from ops.models.registry import KNOWN_MODELS

    model = KNOWN_MODELS[name]
    return {
        "name": name,
        "parameters": model.parameters,
        "layers": model.layers,
        "kv_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "bytes": model.bytes,
        "dtype": model.dtype,
        "instruct": model.instruct,
        "licence": model.licence,
        "sha256": model.sha256,
        "path": str(model_directory(name)) if is_ready(name) else None,
    }
