"""Questions over a cloud document; instructions with a free answer, on prompts that both sides hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """A question over a document and the answers that count as right (the first one is trained on).

    other: a value that the first answer can be exchanged for in the document (`fuser.lab.data.records.exchange`).
    parts: of an answer to two questions at once, each of which the document states somewhere.
    """

    text: str
    answers: tuple[str, ...]
    other: str = ""
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One document with its questions. `source` names where it came from, for tables by source.

    origin: the document that the questions were written for, where that is not `document` itself.
    """

    source: str
    document: str
    questions: tuple[Question, ...]
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Instruction:
    """`prompt` is the text of the shared QUESTION section, any input of the instruction after a blank line."""

    id: str
    prompt: str
    response: str
