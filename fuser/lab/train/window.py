"""Windows of a document: what a Receiver that reads a slice well can say word for word."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fuser.lab.train.cached import Cached

RECITE = "Which words are in the note?"
"""The question that a window's own text answers."""


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive positions of a document, ascending int64, and the text that they hold."""

    positions: Tensor
    text: str


def window_of(document: Cached, positions: int, at: float) -> Window:
    """The window of this many positions that begins at a word, at that share of the document or just before it.

    Its text ends with a whole word (a run of letters and digits), unless the window holds no whole one.

    Args:
        at: in [0, 1].

    Raises:
        ValueError: the document has fewer positions.
    """
    if positions > document.count:
        raise ValueError(f"a window of {positions} positions does not fit a document of {document.count}")
    text = document.text
    begins = document.spans[:, 0].clamp(min=0).tolist()
    first = round(at * (document.count - positions))
    while first and _joined(text, begins[first]):
        first -= 1
    last = int(document.spans[first + positions - 1, 1])
    end = last
    while end > begins[first] and _joined(text, end):
        end -= 1
    held = text[begins[first] : end].strip() or text[begins[first] : last].strip()
    return Window(torch.arange(first, first + positions), held)


def _joined(text: str, at: int) -> bool:
    """Whether a cut before this character parts a word."""
    return 0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum()
