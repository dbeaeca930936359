"""From the lines of a layout to a document: tables and labels as this document writes them."""

from __future__ import annotations

import re
from random import Random

TABLES = ("markdown", "aligned", "tabs", "semicolons", "bars")
HELDOUT_TABLE = "bars"
LABELS = (
    "{}: {}",
    "{}: {}",
    "{} = {}",
    "**{}:** {}",
    "- {}: {}",
    "{:<22} {}",
    "{}\t{}",
    "{} – {}",
    "{:.<26} {}",
)
HELDOUT_LABEL = "{} – {}"
CELL, LABEL = "¦", ":: "


def page(lines: list[str], random: Random, heldout: bool) -> str:
    """The document. Its columns stand in any order but for the first; half of what is held out has held-out forms."""
    table = _form(TABLES, HELDOUT_TABLE, random, heldout)
    label = _form(LABELS, HELDOUT_LABEL, random, heldout)
    written: list[str] = []
    at = 0
    while at < len(lines):
        end = at
        while end < len(lines) and CELL in lines[end]:
            end += 1
        if end > at:
            written += _table(lines[at:end], table, random)
            at = end
        else:
            name, mark, value = lines[at].partition(LABEL)
            written.append(label.format(name, value).rstrip() if mark else lines[at].rstrip())
            at += 1
    return re.sub("\n{3,}", "\n\n", "\n".join(written)).strip("\n")


def _form(forms: tuple[str, ...], held: str, random: Random, heldout: bool) -> str:
    if heldout and random.random() < 0.5:
        return held
    return random.choice([form for form in forms if form != held])


def _table(lines: list[str], form: str, random: Random) -> list[str]:
    rows = [[cell.strip() for cell in line.split(CELL)] for line in lines]
    order = list(range(1, len(rows[0])))
    random.shuffle(order)
    rows = [[row[0], *(row[column] for column in order)] for row in rows]
    if form == "tabs":
        return ["\t".join(row) for row in rows]
    if form == "semicolons":
        return [";".join(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if form == "markdown" and random.random() < 0.5:
        widths = [3] * len(widths)
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    if form == "aligned":
        return ["  ".join(row).rstrip() for row in padded]
    if form == "bars":
        return [" | ".join(row).rstrip() for row in padded]
    found = [f"| {' | '.join(row)} |" for row in padded]
    return [found[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *found[1:]]
