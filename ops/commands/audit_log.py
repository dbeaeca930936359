"""`kvwire audit-log verify`: whether the audit log is whole."""

from pathlib import Path
from typing import Annotated

import typer

from ops.output import Json, print_mapping

app = typer.Typer(no_args_is_help=True, help="The audit log of a cloud node.")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="The audit log.", exists=True, dir_okay=False)],
    as_json: Json = False,
) -> None:
    """Check that every line follows from the one before it: none was changed, removed or put in between.

    Whole lines missing at the end are not seen, nor a file written anew from its first line: compare it with a copy.
    """
    from cloud_node.audit import verify as verified

    print_mapping({"file": str(file), "records": verified(file)}, as_json)
