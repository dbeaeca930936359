"""From the name of a source to its items.

A source is a JSON-lines file (gzip or not), `records:<split>` for generated records, `notes:<split>` for generated
documents of everyday kinds, or a Hugging Face data set (`hf:OWNER/NAME[/CONFIG][:SPLIT]`). Rows are in one of three
schemas, or in an official layout (`fuser.lab.data.layouts`):

    choice       id, question, choices[], answer (index from 0), subject, context; scored_answer stands for answer,
                 null for none
    document     id, context, question, answers[]
    instruction  id, instruction, input, output

Other fields are ignored; a missing id is numbered; a bad row is refused by file, line and field.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from fuser.lab.data.document import Instruction, Item, Question
from fuser.lab.data.hub import PREFIX, HubName, hub_rows
from fuser.lab.data.layouts import to_schema
from fuser.lab.data.overlap import drop_overlaps, held_out
from fuser.lab.data.rows import BadRow, DataRow, read_rows
from fuser.prompts.choice import ChoiceItem

Task = Literal["choice", "document", "instruction"]
AnyItem = TypeVar("AnyItem", ChoiceItem, Item, Instruction)

RECORDS, NOTES = "records:", "notes:"
GENERATED = (RECORDS, NOTES)
"""How the names of generated sources begin: as many items as are asked for."""
MAX_DOCUMENT_CHARS = 1200
NO_ANSWER = "without a right answer"
_TRAIN_SPLITS = ("train",)
_EVALUATION_SPLITS = ("test", "validation", "val", "dev")


def load(
    source: str,
    task: Task | Literal["auto"] = "auto",
    limit: int | None = None,
    seed: int = 1,
    *,
    for_training: bool = True,
    max_document_chars: int = MAX_DOCUMENT_CHARS,
    left_out: Counter[str] | None = None,
) -> list[Any]:
    """All items of a source, or a uniform sample of them fixed by `seed`: `ChoiceItem`, `Item` or `Instruction`.

    Args:
        task: what the rows are; `auto` tells it by the fields of the first row.
        limit: items at most (for documents: documents). A larger limit keeps the smaller one's items.
        for_training: leave out every question of the public evaluation sets (`fuser.lab.data.overlap`). An evaluation
            says False. It also chooses the split of a Hugging Face data set that names none.
        max_document_chars: longer documents are left out; of notes, none is made.
        left_out: gets the number of choice rows that are dropped because they have no right answer.

    Raises:
        BadRow: a row lacks a field or has a wrong one, or the file cannot be read; file, line and field are named.
        DatasetUnavailable: a Hugging Face data set cannot be had.
        ValueError: nothing is left, a limit below 1, or an unknown split of records or notes.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit}: expected at least 1")
    if source.startswith(GENERATED):
        if task not in ("auto", "document"):
            raise ValueError(f"{source}: records and notes are of task document, not {task}")
        make = _records if source.startswith(RECORDS) else _notes
        items = make(source, limit or 1000, seed, max_document_chars)
        return _left(source, drop_overlaps(items, held_out()) if for_training else items, for_training)
    rows = list(_rows(source, _TRAIN_SPLITS if for_training else _EVALUATION_SPLITS))
    if not rows:
        raise BadRow(f"{source}: no rows")
    found = task if task != "auto" else _task(rows[0])
    if found == "choice":
        scored = [row for row in rows if row.fields.get("scored_answer", 0) is not None]
        if left_out is not None and len(scored) < len(rows):
            left_out[NO_ANSWER] += len(rows) - len(scored)
        return _sample(source, _unique(scored, _choice), limit, seed, for_training)
    if found == "instruction":
        return _sample(source, _unique(rows, _instruction), limit, seed, for_training)
    return _sample(source, _documents(source, rows, max_document_chars), limit, seed, for_training)


def _rows(source: str, splits: tuple[str, ...]) -> Iterator[DataRow]:
    raw = hub_rows(HubName.parse(source), splits) if source.startswith(PREFIX) else read_rows(Path(source))
    for row in raw:
        yield DataRow(to_schema(row.fields), row.where, row.number)


def _sample(
    source: str, items: Iterable[AnyItem], limit: int | None, seed: int, for_training: bool
) -> list[AnyItem]:
    kept = _left(source, drop_overlaps(items, held_out()) if for_training else items, for_training)
    if limit is not None and limit < len(kept):
        random.Random(seed).shuffle(kept)
    return kept[:limit]


def _left(source: str, items: Iterable[AnyItem], for_training: bool) -> list[AnyItem]:
    kept = list(items)
    if not kept:
        reason = "; questions of public evaluation sets are left out of training" if for_training else ""
        raise ValueError(f"{source}: no items are left{reason}")
    return kept


def _task(row: DataRow) -> Task:
    if "choices" in row:
        return "choice"
    if "context" in row and "answers" in row:
        return "document"
    if "instruction" in row:
        return "instruction"
    raise BadRow(
        f"{row.where}: cannot tell the task by the fields {', '.join(sorted(row.fields))}; expected choices, "
        "or context and answers, or instruction"
    )


def _unique(rows: list[DataRow], read: Callable[[DataRow], AnyItem]) -> Iterator[AnyItem]:
    seen: set[str] = set()
    for row in rows:
        if row.id() in seen:
            raise BadRow(f"{row.where}: field 'id' is {row.id()!r} a second time")
        seen.add(row.id())
        yield read(row)


def _choice(row: DataRow) -> ChoiceItem:
    gold = "scored_answer" if "scored_answer" in row.fields else "answer"
    choices, answer = row.texts("choices"), row.index(gold)
    try:
        subject, context = row.text("subject", ""), row.text("context", "")
        return ChoiceItem(row.id(), row.text("question"), choices, answer, subject, context.strip())
    except ValueError as error:
        if isinstance(error, BadRow):
            raise
        name = gold if answer >= len(choices) else "choices"
        raise BadRow(f"{row.where}: field {name!r}: {error}") from error


def _instruction(row: DataRow) -> Instruction:
    given = row.text("input", "")
    prompt = row.text("instruction") + (f"\n\n{given}" if given.strip() else "")
    return Instruction(row.id(), prompt, row.text("output"))


def _documents(source: str, rows: list[DataRow], max_chars: int) -> Iterator[Item]:
    """Rows over the same context are one document, in the order of first appearance."""
    name = source if source.startswith(PREFIX) else Path(source).parent.name
    asked: dict[str, list[Question]] = {}
    for row in rows:
        question = Question(_ask(row.text("question")), row.texts("answers"))
        context = row.text("context")
        if len(context) <= max_chars:
            asked.setdefault(" ".join(context.split()), []).append(question)
    for document, questions in asked.items():
        yield Item(name, document, tuple(questions))


def _ask(question: str) -> str:
    """A question as a person writes it: capital first, and a question mark where it ends in no mark of its own."""
    question = question.strip()
    ended = not (question[-1:].isalnum() or question[-1:] in ")\"'")
    return question[:1].upper() + question[1:] + ("" if ended else "?")


def _records(source: str, count: int, seed: int, max_chars: int) -> Iterator[Item]:
    from fuser.lab.data.records.generate import generate

    for record in generate(seed, count, source.removeprefix(RECORDS)):
        questions = (Question(e.question, (e.answer,), e.other, e.parts) for e in record.examples)
        yield Item(source, record.document, tuple(questions))


def _notes(source: str, count: int, seed: int, max_chars: int) -> Iterator[Item]:
    from fuser.lab.data.notes.generate import CHARS, generate

    for note in generate(seed, count, source.removeprefix(NOTES), min(max_chars, CHARS[1])):
        yield Item(
            source, note.document, tuple(Question(asked.text, (asked.answer,)) for asked in note.questions)
        )
