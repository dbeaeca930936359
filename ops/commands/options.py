"""Options that several commands have alike: who plays, and where a report goes"""

from pathlib import Path
from typing import Annotated

import typer

SharerOption = Annotated[
    str | None, typer.Option("--sharer", help="Another Sharer: known name, id or directory.")
]
ReceiverOption = Annotated[str | None, typer.Option("--receiver", help="Another Receiver.")]
BundleOption = Annotated[
    Path | None,
    typer.Option("--bundle", help="A bundle for the pair. [default: the one that ships]", file_okay=False),
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


def whole_numbers(option: str, text: str | None) -> tuple[int, ...]:
    """Whole numbers with commas between; none where the option is not given."""
    try:
        return tuple(int(part) for part in (text or "").split(",") if part.strip())
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: whole numbers, comma between", param_hint=option) from error
