"""Questions of public evaluation sets, which training must not see.

`held_out.bin` holds the first 6 bytes of the SHA-256 of every normalised question, sorted, so that a question can be
recognised without the sets themselves. It was made from the test splits of ARC-Challenge, ARC-Easy, OpenBookQA, MMLU
and MMLU-Redux, from C-Eval's val, from the dev splits of SQuAD and NQ-swap, and from a file of the one question that
ARC-Challenge's validation split shares with its training split and none of these:

    python -m fuser.lab.data.overlap fuser/lab/data/held_out.bin FILE.jsonl.gz ...

About 30,000 questions of 2**48: a chance match in a million training questions has probability 1e-4.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from fuser.lab.data.document import Instruction, Item
from fuser.prompts.choice import ChoiceItem

_BYTES = 6
_FILE = Path(__file__).with_name("held_out.bin")

AnyItem = TypeVar("AnyItem", ChoiceItem, Item, Instruction)


def normalise(question: str) -> str:
    """Letters and digits of any script, lower-cased."""
    return "".join(filter(str.isalnum, question.lower()))


def digest(question: str) -> bytes:
    """What stands for a question in `held_out.bin`; empty where nothing is left to compare."""
    kept = normalise(question)
    return sha256(kept.encode()).digest()[:_BYTES] if kept else b""


@cache
def held_out() -> frozenset[bytes]:
    """Digests of the questions of the public evaluation sets."""
    packed = _FILE.read_bytes()
    return frozenset(packed[at : at + _BYTES] for at in range(0, len(packed), _BYTES))


def drop_overlaps(items: Iterable[AnyItem], digests: Container[bytes]) -> Iterator[AnyItem]:
    """The items whose question is not in `digests`; a document loses single questions, and goes with its last."""
    for item in items:
        if isinstance(item, Item):
            kept = tuple(q for q in item.questions if digest(q.text) not in digests)
            if kept:
                yield item if len(kept) == len(item.questions) else replace(item, questions=kept)
        elif not any(digest(text) in digests for text in _questions(item)):
            yield item


def _questions(item: ChoiceItem | Instruction) -> Iterator[str]:
    """What may be the question: a prompt's input follows after a blank line, so each part up to one counts."""
    text = item.question if isinstance(item, ChoiceItem) else item.prompt
    yield text
    at = text.find("\n\n")
    while at >= 0:
        yield text[:at]
        at = text.find("\n\n", at + 2)


def write_held_out(target: Path, sources: Iterable[Path]) -> None:
    """Make the list from JSON-lines files with a `question` field."""
    from fuser.lab.data.layouts import to_schema
    from fuser.lab.data.rows import DataRow, read_rows

    rows = (
        DataRow(to_schema(row.fields), row.where, row.number) for path in sources for row in read_rows(path)
    )
    digests = {digest(row.text("question")) for row in rows} - {b""}
    target.write_bytes(b"".join(sorted(digests)))


if __name__ == "__main__":
    write_held_out(Path(sys.argv[1]), map(Path, sys.argv[2:]))
