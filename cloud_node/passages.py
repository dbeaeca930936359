"""Passages: the pieces of documents that are searched and asked about, and the index of their words.

The index counts words itself, so one search serves every database, and how rare a word is counts over the searched
documents of one tenant alone: nobody learns from a score what another tenant's documents say.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    ForeignKey,
    Select,
    String,
    UniqueConstraint,
    case,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

PASSAGE_CHARS: Final = 1_000
"""The longest passage: about 250 tokens, as long as the texts that bundles are trained on (`docs/training.md`). Of a
few passages together the Sharer has then read no more than a page before it answers."""
_MOST_WORDS: Final = 64
"""Of a query."""
_LETTERS: Final = 6
"""The first letters of a word stand for it and its other forms, in any language: in 1,500 questions over 5,900 passages
of English they find what a stemmer of English finds."""
_LONGEST: Final = 64
_K1: Final = 0.9
_B: Final = 0.4
"""Of BM25, as Anserini has them for passages."""
_COMMON: Final = re.compile(
    "an?|and|are|as|at|be|by|can|did|do|does|for|from|had|has|have|how|i|in|is|it|of|on|or|that|the|there|this|to|was|"
    "were|what|when|where|which|who|whose|why|will|with"
)
"""Of questions, and of every text: in a small store one of these could be rarer than the word that matters."""
_UNSPACED: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_RUN: Final = re.compile(rf"[{_UNSPACED}]+|[^\W{_UNSPACED}_]+")
_PARAGRAPH: Final = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE: Final = re.compile(r"[.!?]\s+|[。！？]|\n")
_WORD: Final = re.compile(r"\s")


class Base(DeclarativeBase):
    """Of all tables of a store of documents."""


class Passage(Base):
    """Characters `begins` up to `ends` of a document; `number` counts them from 1. words: how many it has."""

    __tablename__ = "passages"
    __table_args__ = (UniqueConstraint("tenant", "document", "number"),)

    key: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64))
    document: Mapped[str] = mapped_column(String(256))
    number: Mapped[int]
    begins: Mapped[int]
    ends: Mapped[int]
    words: Mapped[int]


class _Word(Base):
    """How often a word stands in a passage."""

    __tablename__ = "passage_words"
    __table_args__ = ({"sqlite_with_rowid": False},)

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    word: Mapped[str] = mapped_column(String(_LONGEST), primary_key=True)
    passage: Mapped[int] = mapped_column(ForeignKey(Passage.key), primary_key=True, index=True)
    times: Mapped[int]


def passages(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of characters of `PASSAGE_CHARS` at most that are the whole text, but for blanks around them.

    Each ends where a paragraph does; with none in its second half, at the end of a sentence or line, or of a word.
    """
    begins = 0
    while begins < len(text):
        ends = begins + PASSAGE_CHARS
        if ends < len(text):
            half = begins + PASSAGE_CHARS // 2
            for end in (_PARAGRAPH, _SENTENCE, _WORD):
                found = [match.end() for match in end.finditer(text, half, ends)]
                if found:
                    ends = found[-1]
                    break
        ends = min(ends, len(text))
        piece = text[begins:ends]
        if bare := piece.strip():
            first = begins + piece.index(bare)
            yield first, first + len(bare)
        begins = ends


def words_of(text: str) -> Iterator[str]:
    """What a text is found by: small letters without accents, of long words the first six, and no common words.

    Of scripts without spaces between words every two neighbours.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))
    for run in _RUN.findall(plain):
        if re.match(f"[{_UNSPACED}]", run):
            yield from (run[i : i + 2] for i in range(max(1, len(run) - 1)))
        elif not _COMMON.fullmatch(run):
            yield run[:_LETTERS] if run.isalpha() else run[:_LONGEST]


def put(connection: Connection, tenant: str, document: str, text: str) -> int:
    """Split a document and index its passages; how many there are."""
    ranges = list(passages(text))
    counted = [Counter(words_of(text[begins:ends])) for begins, ends in ranges]
    rows = [
        {
            "tenant": tenant,
            "document": document,
            "number": number,
            "begins": begins,
            "ends": ends,
            "words": words.total(),
        }
        for number, ((begins, ends), words) in enumerate(zip(ranges, counted, strict=True), 1)
    ]
    connection.execute(insert(Passage), rows)
    keys = connection.execute(
        select(Passage.key).where(*_of(tenant, document)).order_by(Passage.number)
    ).scalars()
    indexed = [
        {"tenant": tenant, "word": word, "passage": key, "times": times}
        for key, words in zip(keys, counted, strict=True)
        for word, times in words.items()
    ]
    if indexed:
        connection.execute(insert(_Word), indexed)
    return len(rows)


def drop(connection: Connection, tenant: str, document: str) -> None:
    """Forget the passages of a document, and their words."""
    its = select(Passage.key).where(*_of(tenant, document))
    connection.execute(delete(_Word).where(_Word.passage.in_(its)))
    connection.execute(delete(Passage).where(*_of(tenant, document)))


def search(
    connection: Connection, tenant: str, query: str, k: int, among: Select[str]
) -> list[tuple[str, int, int, int, float]]:
    """The `k` passages with the most of a query's words, rare words first (BM25); best first, each with its score.

    Args:
        among: the ids of the tenant's documents that are searched. No other document changes what is found, or a
            score.

    Returns:
        Document, number, range and score of each: 1 is the most that a passage could have.
    """
    words = list(dict.fromkeys(words_of(query)))[:_MOST_WORDS]
    searched = (Passage.tenant == tenant, Passage.document.in_(among))
    total, length = connection.execute(select(func.count(), func.avg(Passage.words)).where(*searched)).one()
    if not words or not length:
        return []
    having = select(_Word.word, func.count()).join(Passage, Passage.key == _Word.passage)
    having = having.where(_Word.tenant == tenant, _Word.word.in_(words), *searched).group_by(_Word.word)
    found: dict[str, int] = {row[0]: row[1] for row in connection.execute(having)}
    if not found:
        return []
    rarity = {
        word: math.log(1 + (total - found.get(word, 0) + 0.5) / (found.get(word, 0) + 0.5)) for word in words
    }
    longer = 1 - _B + _B / float(length) * Passage.words
    weight: ColumnElement[float] = case({word: rarity[word] for word in found}, value=_Word.word)
    score = func.sum(weight * _Word.times / (_Word.times + _K1 * longer)).label("score")
    best = (
        select(Passage.document, Passage.number, Passage.begins, Passage.ends, score)
        .join(_Word, Passage.key == _Word.passage)
        .where(_Word.tenant == tenant, _Word.word.in_(found), *searched)
        .group_by(Passage.key)
        .order_by(score.desc(), Passage.document, Passage.number)
        .limit(k)
    )
    most = sum(rarity.values())
    return [
        (document, number, begins, ends, round(float(scored) / most, 3))
        for document, number, begins, ends, scored in connection.execute(best)
    ]


def _of(tenant: str, document: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Passage.tenant == tenant, Passage.document == document
