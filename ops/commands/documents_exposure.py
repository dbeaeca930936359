"""`kvwire documents exposure`: what has left of a document, as a table and marked in its text."""

from dataclasses import asdict
from itertools import groupby
from typing import Annotated

import typer
from rich.text import Text

from ops.commands.options import CLOUD_TOML, CloudConfigFile, Tenant, opened
from ops.output import Json, console, note, print_json, print_table, printable


def exposure(
    document_id: Annotated[str, typer.Argument(metavar="ID", help="Its id, also of one that was removed.")],
    tenant: Tenant,
    config: CloudConfigFile = CLOUD_TOML,
    with_text: Annotated[
        bool, typer.Option("--show", help="Print the text, what was quoted marked: here, in the cloud.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What has left of a document, by day (UTC) and who asked.

    A position is a token of the Sharer. New ones were not quoted before; those of drafts, shared slices and relayed
    texts count as new each time, so there may be more of them than the text has tokens.
    """
    from cloud_node.users import is_user
    from kvwire.errors import NotFound

    with opened(config) as (_, documents):
        days, quotes = documents.exposure(tenant, document_id)
        try:
            text = documents.get(tenant, document_id).text
        except NotFound:
            if not days:
                raise
            text = ""
    spans = [(begins, ends) for one in quotes for begins, ends, _ in one.spans]
    shown = _times(len(text), [span for one in quotes if not is_user(one.identity) for span in one.spans])
    quoted = sum(times > 0 for times in shown)
    if as_json:
        by_identity = [
            {"identity": one.identity, "positions": len(one.spans), "spans": one.spans} for one in quotes
        ]
        told = {"id": document_id, "days": [asdict(day) for day in days], "quoted": by_identity}
        print_json(told | {"characters": len(text), "characters_quoted": quoted})
        return
    if not days:
        note(f"nothing has left of {document_id}")
        return
    rows = [
        (day.day, day.identity, f"{day.questions:,}", f"{day.positions:,}", f"{day.new_positions:,}")
        for day in days
    ]
    print_table(("day", "identity", "questions", "positions", "new positions"), rows)
    if not text:
        note(f"{document_id} is removed; where in its text these stood is not kept")
        return
    console.print(
        f"{len(set(spans)):,} different positions were quoted, {quoted:,} of {len(text):,} characters",
        highlight=False,
    )
    if with_text:
        console.print(_heat(text, shown), soft_wrap=not console.is_terminal)


def _times(length: int, spans: "list[tuple[int, int, int]]") -> list[int]:
    """How often each character of a text was in a position that left."""
    times = [0] * length
    for begins, ends, count in spans:
        for at in range(begins, min(ends, length)):
            times[at] += count
    return times


def _heat(text: str, times: list[int]) -> Text:
    """The text, darker where it left oftener, or where no colours are shown in brackets behind how often; control
    characters, and there brackets of its own, as they would be in Python."""
    shown, at = Text(), 0
    plain_text = console.no_color or console.color_system is None
    for count, run in groupby(times):
        length = len(list(run))
        style = _HEAT[min(count.bit_length(), len(_HEAT) - 1)]
        piece = text[at : at + length]
        plain = printable(piece, "\n\t")
        if plain_text:
            plain = plain.replace("[[", r"\x5b\x5b").replace("]]", r"\x5d\x5d")
        shown.append(f"[[{count}:{plain}]]" if count and plain_text else plain, style)
        at += length
    return shown


_HEAT = ("", "black on yellow", "black on dark_orange", "white on red", "bold white on dark_red")
"""Never, once, two and three times, four to seven, oftener."""
