"""From texts of one's own to questions over pieces of them, parted by document; what is left out is counted by reason.

A text is cut into pieces of at most `MOST` characters, at paragraphs, then at sentences, then at words. Of a JSON-lines
file the rows' own questions are asked; texts without questions get made ones: a gap in a sentence, the words that
follow others.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path

from fuser.atomic import atomic_write
from fuser.lab.data.cloze import with_clozes, with_continuations
from fuser.lab.data.document import Item, Question
from fuser.lab.data.overlap import drop_overlaps, held_out
from fuser.lab.data.rows import BadRow, DataRow, read_rows

MOST = 800
"""Characters of a piece."""
LEAST = 100
"""Characters of a piece that is asked about."""
DOCUMENTS = 8
"""Documents that there must be: two that are held out, two that choose plans, and some to train on."""
_ENDINGS = (".txt", ".md")
_HELD_OUT, _CHOOSING = 0.15, 0.1  # shares of the documents
_BREAK = re.compile(r"\n\s*\n")
_ASK_OF_TRAINING = (1, 1)  # made questions of a piece: gaps, continuations
_ASK_OF_OTHERS = (1, 0)  # continuations only where there is no gap to ask for


@dataclass(frozen=True, slots=True)
class PairText:
    """A text, its whitespace as single blanks but for paragraphs, and the questions that came with it."""

    name: str
    paragraphs: tuple[str, ...]
    questions: tuple[Question, ...] = ()


@dataclass(frozen=True, slots=True)
class Corpus:
    """Pieces with their questions, the first pieces of all documents first; no document is in two splits.

    train: for training. plans: for choosing plans, and for validation. held_out: for the table.
    """

    documents: int
    train: tuple[Item, ...]
    plans: tuple[Item, ...]
    held_out: tuple[Item, ...]
    left_out: Counter[str]


def read_corpus(path: Path, seed: int = 1) -> Corpus:
    """Read a JSON-lines file, or the .txt and .md files below a directory.

    Raises:
        BadRow: a row lacks a field or has a wrong one; file, line and field are named.
        ValueError: there are fewer than `DOCUMENTS` documents, or nothing to ask about.
    """
    left_out: Counter[str] = Counter()
    documents = list(_files(path, left_out) if path.is_dir() else _rows(path))
    parted = _parted(_without_repeats(documents, left_out), seed, path)
    splits: list[tuple[Item, ...]] = []
    for documents_of, counts in zip(parted, (_ASK_OF_TRAINING, _ASK_OF_OTHERS, _ASK_OF_OTHERS), strict=True):
        pieces = [list(_pieces(document, counts, left_out)) for document in documents_of]
        in_turn = [piece for some in zip_longest(*pieces) for piece in some if piece is not None]
        asked = sum(len(piece.questions) for piece in in_turn)
        kept = tuple(drop_overlaps(in_turn, held_out()))
        left_out["questions of public evaluation sets"] += asked - sum(len(p.questions) for p in kept)
        if len(kept) < 2:
            raise ValueError(f"{path}: too little text to ask about: {counted(left_out)}")
        splits.append(kept)
    left_out += Counter()  # no zeros
    train, plans, held = splits
    return Corpus(sum(map(len, parted)), train, plans, held, left_out)


def write_items(items: Iterable[Item], path: Path) -> None:
    """Write the documented format: a row for each question, its document as `context`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (
        {"context": item.document, "question": question.text, "answers": list(question.answers)}
        for item in items
        for question in item.questions
    )
    with atomic_write(path) as partial:
        partial.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )


def counted(left_out: Counter[str]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count) or "nothing"


def _files(directory: Path, left_out: Counter[str]) -> Iterator[PairText]:
    for path in sorted(directory.rglob("*")):
        if not path.is_file():
            continue
        if path.suffix.lower() not in _ENDINGS:
            left_out[f"files that are not {' or '.join(_ENDINGS)}"] += 1
            continue
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            left_out["files that are not UTF-8"] += 1
            continue
        except OSError:
            left_out["files that cannot be read"] += 1
            continue
        found = tuple(filter(None, (" ".join(part.split()) for part in _BREAK.split(text))))
        if found and "\0" not in text:
            yield PairText(str(path.relative_to(directory)), found)
        else:
            left_out["files without text"] += 1


def _rows(path: Path) -> Iterator[PairText]:
    """Rows over the same context are one document. A row without a question is a text."""
    found: dict[str, tuple[str, list[Question]]] = {}
    for row in read_rows(path):
        for field in ("choices", "instruction"):
            if field in row:
                raise BadRow(
                    f"{row.where}: field {field!r} is of another task: a pair is trained on questions over "
                    "documents, rows of context, question and answers"
                )
        text = row.text("context")
        _, asked = found.setdefault(" ".join(text.split()), (text, []))
        if "question" in row or "answers" in row:
            asked.append(_question(row))
    for number, (whole, (text, asked)) in enumerate(found.items(), 1):
        paragraphs = tuple(filter(None, (" ".join(part.split()) for part in _BREAK.split(text))))
        yield PairText(f"document {number}", (whole,) if asked else paragraphs, tuple(asked))


def _question(row: DataRow) -> Question:
    question, answers = row.text("question").strip(), row.texts("answers")
    if not answers[0].strip():
        raise row.bad("answers", "a list of texts, the first of which is not blank", list(answers))
    return Question(question, tuple(" ".join(answer.split()) for answer in answers))


def _without_repeats(documents: Sequence[PairText], left_out: Counter[str]) -> list[PairText]:
    """Without paragraphs that an earlier document has: nothing that is held out may stand in what is trained on."""
    seen: set[str] = set()
    found = []
    for document in documents:
        kept = tuple(p for p in dict.fromkeys(document.paragraphs) if p not in seen)
        left_out["paragraphs that stand twice"] += len(document.paragraphs) - len(kept)
        seen.update(kept)
        if kept:
            found.append(replace(document, paragraphs=kept))
    return found


def _parted(documents: Sequence[PairText], seed: int, path: Path) -> list[list[PairText]]:
    """Documents to train on, to choose plans by, and held out."""
    if len(documents) < DOCUMENTS:
        raise ValueError(
            f"{path} has {len(documents)} documents; at least {DOCUMENTS} are needed, as whole documents are held out: "
            f"{' and '.join(_ENDINGS)} files below a directory, or rows of a JSON-lines file with other contexts"
        )
    order = random.Random(seed).sample(list(documents), len(documents))
    held, choosing = (max(2, round(share * len(order))) for share in (_HELD_OUT, _CHOOSING))
    return [order[held + choosing :], order[held : held + choosing], order[:held]]


def _pieces(document: PairText, counts: tuple[int, int], left_out: Counter[str]) -> Iterator[Item]:
    if document.questions:
        yield from _own_questions(document, left_out)
        return
    gaps, continuations = counts
    for text in cut(document.paragraphs, MOST):
        if len(text) < LEAST:
            left_out[f"pieces of text under {LEAST} characters"] += 1
            continue
        item = with_clozes(Item(document.name, text, ()), gaps)
        item = with_continuations(item, continuations if item.questions else max(1, continuations))
        if item.questions:
            yield item
        else:
            left_out["pieces of text without a name, a number or seven words in a row"] += 1


def _own_questions(document: PairText, left_out: Counter[str]) -> Iterator[Item]:
    """Whole, or each question over the piece that holds its answer and most of its words."""
    (text,) = document.paragraphs
    if len(text) <= MOST:
        yield Item(document.name, text, document.questions)
        return
    asked: dict[str, list[Question]] = {piece: [] for piece in cut((text,), MOST)}
    for question in document.questions:
        words = _words(question.text)
        holding = [piece for piece in asked if any(answer in piece for answer in question.answers)]
        if holding:
            asked[max(holding, key=lambda piece: len(words & _words(piece)))].append(question)
        else:
            left_out[f"questions whose answer is no part of a document of over {MOST} characters"] += 1
    for piece, questions in asked.items():
        if questions:
            yield Item(document.name, piece, tuple(questions))
        else:
            left_out[f"pieces of documents of over {MOST} characters that nothing is asked about"] += 1


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def cut(paragraphs: Sequence[str], most: int) -> list[str]:
    """Neighbouring paragraphs together, up to `most` characters; longer ones cut after sentences, else words."""
    found: list[str] = []
    for part in chain.from_iterable(_cut_one(paragraph, most) for paragraph in paragraphs):
        if found and len(found[-1]) + 1 + len(part) <= most:
            found[-1] += f" {part}"
        else:
            found.append(part)
    return found


def _cut_one(text: str, most: int) -> Iterator[str]:
    while len(text) > most:
        ends = [match.end() for match in re.finditer(r"[.!?](?=\s)", text[: most + 1])]
        end = next((e for e in reversed(ends) if e >= most // 2), 0) or text.rfind(" ", most // 2, most + 1)
        end = most if end <= 0 else end
        yield text[:end].strip()
        text = text[end:].strip()
    if text:
        yield text
