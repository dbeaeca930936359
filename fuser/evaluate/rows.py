"""The rows of a table over cloud documents, and what each of them needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fuser.bundle import Bundle
from fuser.evaluate.dial import Dial
from fuser.evaluate.questions import DocumentQuestion
from kvwire.plan import WHOLE
from kvwire.segment import SliceKind

DOCUMENT_ROWS = {
    "receiver": "Receiver alone (floor)",
    "text": "Receiver given the document's text (ceiling)",
    "excerpt-text": "Receiver given the excerpt's text",
    "own-all": "Receiver's own KV, all document positions",
    "own": "Receiver's own KV, the excerpt's positions",
    "few-shot": "Receiver, few-shot",
    "sharer": "Sharer's own answer",
    "sharer-excerpt": "Sharer, its own KV at the excerpt's positions",
    "relay-fair": "text relay (fair)",
    "relay-paper": "text relay (paper)",
    "routing": "routing",
    "translated-all": "translated KV, all document positions",
    "fused": "fused",
    "mismatched": "fused, slice of another document",
    "identical": "fused, Identical Sharer",
    "lora": "Receiver with LoRA",
    "shared": "fused at the question",
    "shared-mismatched": "fused at the question, Sharer read another document",
    "summary": "summary",
    "summary-mismatched": "summary of another document",
}
"""Row -> what a table calls it.

receiver: nothing before the question. own, own-all: the Receiver's own KV at the Sharer's tokens of the excerpt or the
whole document, no Fuser in between; with translated-all they tell what selection loses from what translation loses.
sharer-excerpt: the same model on both sides, the Sharer's cache at the excerpt. few-shot: other documents with
questions and answers. relay-fair: the Sharer's answer to the prompt that the slice is cut from, given as a document.
relay-paper: background that the Sharer wrote first (arXiv 2510.03215). routing: the Receiver's own answer where it is
sure of it, else the Sharer's. mismatched: the slice of the most alike question over another document
(`fuser.evaluate.stranger`). identical: the slice of a bundle whose Sharer is the Receiver's own model.
"""

BACKGROUND = "background"
"""What the Sharer says first in the paper's relay: kept beside the rows, in no table."""

READS_FIRST = {"relay-fair": "sharer", "routing": "sharer", "relay-paper": BACKGROUND}
"""Row -> the Sharer's texts that it reads."""

SENT = ("fused", "mismatched")
"""Rows that are made once for every dial (`fuser.evaluate.dial`)."""

SUMMARIES = ("summary", "summary-mismatched")
"""Likewise; but their positions are learnt, not chosen, and their codes are sent whole: no pool and no code_dim."""

SELECTED = ("excerpt-text", "own", "sharer-excerpt")
"""Rows that are made once for every choice of positions: nothing is encoded for them."""

ALL = ("own-all", "translated-all")
"""Rows that have all of the document's positions."""

EXCERPTS = ("fused", "mismatched", "identical", *SELECTED, *ALL)
"""Rows that read document positions of the Sharer's."""

SERVICE_ROWS = {"shared": SliceKind.SHARED, "summary": SliceKind.SUMMARY}
"""Row -> the slice it is cut as; each has a row `-mismatched` too."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What some rows need beside the bundle. training: questions for the few-shot row; lora: an adapter's folder;
    answerable: whether the documents answer the questions."""

    training: tuple[DocumentQuestion, ...] = ()
    identical: Bundle | None = None
    lora: Path | None = None
    answerable: bool = True


def dialled(dials: Sequence[Dial]) -> dict[str, tuple[str, Dial]]:
    """Every row of a table by its name, `fused m8 int8` say: the row of `DOCUMENT_ROWS` it is of, and its dial."""
    found: dict[str, tuple[str, Dial]] = {}
    for row in DOCUMENT_ROWS:
        for dial in dials:
            used = _of(row, dial)
            found[f"{row} {used}".rstrip()] = (row, used)
    return found


def _of(row: str, dial: Dial) -> Dial:
    """As much of a dial as a row has."""
    if row in SENT:
        return dial
    if row in SUMMARIES:
        return Dial(replace(dial.plan, code_dim=0))
    return dial.selection if row in SELECTED else Dial()


def label(row: str, dial: Dial) -> str:
    """What a table calls a row with its dial."""
    words = (f"{d[1:]} positions" if d[0] == "m" and d[1:].isdigit() else d for d in str(dial).split())
    return ", ".join((DOCUMENT_ROWS[row], *words))


def counterpart(name: str, row: str) -> str:
    """Name of the row that is to be compared with the row `name`: at the same dial, as far as it has one."""
    _, *words = name.split()
    chosen = {word for word in words if re.fullmatch(r"[mp]\d+", word)}
    if row in SELECTED:
        words = [word for word in words if word in chosen]
    elif row in SUMMARIES:
        words = [re.sub(r":\d+", "", word) for word in words if word not in chosen or word[0] == "m"]
        words = [word for word in words if word != WHOLE.codec]
    elif row not in SENT:
        words = []
    return " ".join((row, *words))


def missing(row: str, bundle: Bundle, extras: Extras, chat: bool, documents: int) -> str | None:
    """Why a row cannot be run with what is given; None where it can.

    Args:
        chat: whether the Sharer's tokenizer has a chat template.
        documents: how many different ones the questions are over.

    Raises:
        ValueError: an unknown row.
    """
    if row not in DOCUMENT_ROWS:
        raise ValueError(f"unknown row {row!r}; rows over documents are {', '.join(DOCUMENT_ROWS)}")
    kind = SERVICE_ROWS.get(row.removesuffix("-mismatched"))
    if row in EXCERPTS and row != "identical":
        kind = SliceKind.EXCERPT
    if kind is not None and kind not in bundle.kinds:
        return f"the bundle makes no {kind} slices"
    if row == "few-shot" and not extras.training:
        return "needs training questions over documents: --calibration"
    if row == "identical":
        if extras.identical is None:
            return "needs a bundle whose Sharer is the Receiver's own model: --identical"
        if SliceKind.EXCERPT not in extras.identical.kinds:
            return f"the bundle given with --identical makes no {SliceKind.EXCERPT} slices"
    if row == "lora" and extras.lora is None:
        return "needs a trained adapter: --lora"
    if row == "relay-paper" and not chat:
        return "the Sharer's tokenizer has no chat template, which the paper's relay is defined by"
    if row.endswith("mismatched") and not extras.answerable:
        return "every slice is one of a document that does not answer the question"
    if row.endswith("mismatched") and documents < 2:
        return "needs questions over at least two documents: a higher --limit"
    return None
