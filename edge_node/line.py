"""The first line of what a model says: an answer ends there, and what a model adds below it is not part of it."""

from __future__ import annotations


class FirstLine:
    """Takes pieces of text and gives on what belongs to the first line that is not blank, less blanks around it.

    A newline ends it.
    """

    def __init__(self) -> None:
        self.ended = False
        """The line is over: nothing more belongs to it."""
        self._begun = False
        self._blanks = ""

    def add(self, piece: str) -> str:
        """What of `piece` belongs to the line; blanks come once something follows them."""
        if self.ended:
            return ""
        text = self._blanks + piece
        line, newline, _ = (text if self._begun else text.lstrip()).partition("\n")
        said = line.rstrip()
        self._blanks = line[len(said) :]
        self._begun = self._begun or bool(said)
        self.ended = bool(newline)
        return said
