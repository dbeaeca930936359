"""Hard cases: the same questions over another document, over two at once, over a longer one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random

from fuser.lab.data.document import Item, Question

PLAIN, UNANSWERABLE, TWO, LONG = "plain", "unanswerable", "two", "long:"
_NEARLY = 20  # a document may be short of the wanted length by one part in this many
_LACKING = 4  # and is left out where it is short by one part in this many


class Cases:
    """Turns an item into itself as it stands in each case; the same seed, pool and item give the same.

    Cases are named

        plain         the document as it is
        unanswerable  another document, which holds no right answer and no name that the questions name
        two           the document and such another one, in both orders: two items
        long:N        the document somewhere among others, of at most N tokens in all and of nearly as many as fit

    and an item says in its `source` which case it is, and in its `origin` which document was its own.

    Args:
        pool: where other documents are taken from.
        tokens: how many tokens a text has, for `long:N`.
        max_chars: longer documents are left out, before anything is put beside them.
        left_out: where questions are counted by the reason that they are not in all cases.

    Raises:
        ValueError: an unknown case, `unanswerable` beside others (it is marked otherwise), or no case.
    """

    def __init__(
        self,
        names: Sequence[str],
        pool: Sequence[Item],
        seed: int,
        tokens: Callable[[str], int],
        max_chars: int,
        left_out: Counter[str],
    ) -> None:
        for name in names:
            if name not in (PLAIN, UNANSWERABLE, TWO) and not re.fullmatch(rf"{LONG}[1-9]\d{{0,5}}", name):
                raise ValueError(f"unknown case {name!r}; cases are plain, unanswerable, two and long:TOKENS")
        if not names or (UNANSWERABLE in names and len(names) > 1):
            raise ValueError(
                "unanswerable is a case for itself: its questions have no right answer to be found"
            )
        self._names = tuple(dict.fromkeys(names))
        self._pool = list(dict.fromkeys(item.document for item in pool))
        self._seed = seed
        self._tokens = tokens
        self._max_chars = max_chars
        self._left_out = left_out
        self._lengths: dict[str, int] = {}  # tokens of other documents, once counted

    def __call__(self, item: Item) -> Iterator[Item]:
        """The item in every case, in the order the cases were named."""
        if len(item.document) > self._max_chars:
            self._skip(item, f"over documents of more than {self._max_chars} characters")
            return
        for name in self._names:
            for document, label in self._documents(item, name):
                source = item.source if name == PLAIN else f"{item.source}, {label}"
                yield replace(item, document=document, source=source, origin=item.document)

    def _documents(self, item: Item, name: str) -> Iterator[tuple[str, str]]:
        """Documents that stand for an item's own, each with what is said of it in the source."""
        if name == PLAIN:
            yield item.document, name
        elif name.startswith(LONG):
            longer = self._long(item, int(name.removeprefix(LONG)))
            if longer is not None:
                yield longer, name
        elif (other := next(self._others(item), None)) is None:
            self._skip(item, "without another document that does not tell of them")
        elif name == UNANSWERABLE:
            yield other, name
        else:
            yield f"{item.document}\n{other}", "two, its own first"
            yield f"{other}\n{item.document}", "two, its own last"

    def _others(self, item: Item) -> Iterator[str]:
        """Other documents that do not tell of an item's questions, from a place that seed and document give."""
        telling = _telling(item)
        start = self._random(item).randrange(max(1, len(self._pool)))
        for document in (*self._pool[start:], *self._pool[:start]):
            if document != item.document and not telling.search(document):
                yield document

    def _long(self, item: Item, tokens: int) -> str | None:
        room = tokens - self._tokens(item.document)
        if room < 0:
            self._skip(item, f"over documents of more than {tokens} tokens")
            return None
        pieces: list[str] = []
        for other in self._others(item):  # whole ones: what is cut could not be told from the question's own
            needed = self._length(other)
            if needed <= room:
                pieces.append(other)
                room -= needed
            if room < tokens // _NEARLY:
                break
        if room > tokens // _LACKING:
            self._skip(item, f"without enough other documents to make {tokens} tokens")
            return None
        pieces.insert(self._random(item).randint(0, len(pieces)), item.document)
        return "\n".join(pieces)

    def _length(self, document: str) -> int:
        if document not in self._lengths:
            self._lengths[document] = self._tokens(f"\n{document}")
        return self._lengths[document]

    def _random(self, item: Item) -> Random:
        return Random(f"{self._seed}:{item.document}")

    def _skip(self, item: Item, reason: str) -> None:
        self._left_out[reason] += len(item.questions)


def without_answers(items: Sequence[Item], pool: Sequence[Item], no_answer: str) -> Iterator[Item]:
    """Near misses: the questions of items, each over the document of a pool that shares most words with it, and yet
    holds no right answer. What is to be said is `no_answer`.
    """
    documents = list(dict.fromkeys(item.document for item in pool))
    words = [set(re.findall(r"\w{3,}", document.lower())) for document in documents]
    for item in items:
        telling = _telling(item, names=False)
        asked = set(re.findall(r"\w{3,}", " ".join(question.text for question in item.questions).lower()))
        for index in sorted(range(len(documents)), key=lambda at: -len(asked & words[at])):
            if documents[index] != item.document and not telling.search(documents[index]):
                questions = tuple(Question(question.text, (no_answer,)) for question in item.questions)
                yield Item(f"{item.source}, near", documents[index], questions, item.document)
                break


def _telling(item: Item, names: bool = True) -> re.Pattern[str]:
    """Finds in a text a right answer, or a name that a question names: any capitalised word but its first."""
    found = (
        {name for q in item.questions for name in re.findall(r"(?<=\s)[A-Z]\w+", q.text)} if names else set()
    )
    answers = {answer.strip() for q in item.questions for answer in (*q.answers, *q.parts)}
    words = sorted(re.escape(word) for word in found | answers if word)
    return re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)" if words else r"(?!)", re.IGNORECASE)
