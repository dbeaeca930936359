"""What of a generated text counts as the answer to a question over a document: its first line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def first_line(text: str) -> str:
    """An answer's first line that is not empty: what counts of it."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def line_ended(tokenizer: Any) -> Callable[[list[int]], bool]:
    """Whether tokens hold a whole first line, so that nothing said after them counts."""

    def ended(ids: list[int]) -> bool:
        return "\n" in tokenizer.decode(ids, skip_special_tokens=True).lstrip()

    return ended
