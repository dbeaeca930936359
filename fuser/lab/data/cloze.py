"""Questions that any text answers, unlabelled: what stands in the gap of this sentence, which words follow these?"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace

from fuser.lab.data.document import Item, Question

GAP = "____"
_LEAST, _MOST = 5, 30  # words of a sentence that is quoted
_SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s)|$)", re.DOTALL)
_NAME = r"[^\W\d_a-z]\w*(?:[-'&]\w+)*"  # begins with a letter that is no small Latin one
_THING = re.compile(
    rf"(?<![\w.-])(?:{_NAME}(?: {_NAME}){{0,2}}|\d+(?:[.,:/-]\d+)*)(?![\w-]|[.,:/]\w)", re.UNICODE
)


def with_clozes(item: Item, count: int) -> Item:
    """The item with at most `count` more questions after its own, always the same for the same document.

    Each quotes a sentence with a gap where one name (of up to three words, not the sentence's first) or one number
    stood, which is the answer, word for word as the document has it. A sentence is asked about once. A text without
    such sentences gets none.
    """
    found = list(_gaps(item.document))
    random.Random(item.document).shuffle(found)
    asked: dict[int, Question] = {}
    for sentence, question in found:
        asked.setdefault(sentence, question)
    return replace(item, questions=(*item.questions, *list(asked.values())[:count]))


def _gaps(text: str) -> Iterator[tuple[int, Question]]:
    """Where each sentence begins, and a question for each of its gaps."""
    for sentence in _SENTENCE.finditer(text):
        quoted = " ".join(sentence.group().split())
        if not _LEAST <= len(quoted.split()) <= _MOST or '"' in quoted or GAP in quoted:
            continue
        for thing in _THING.finditer(quoted):
            said = thing.group()
            before, after = quoted[: thing.start()], quoted[thing.end() :]
            first = not any(letter.isalnum() for letter in before) and not said[0].isdigit()
            known = said[0].isupper() or said[0].isdigit()
            if known and not first and said not in before + after and said in text:
                gapped = f"{before}{GAP}{after}".rstrip(" .!?")
                yield (
                    sentence.start(),
                    Question(f'Which word or number fills the blank in "{gapped}"?', (said,)),
                )


_CUE, _ANSWER = 4, 3  # words
_EDGES = " \"'.,;:!?()[]"


def with_continuations(item: Item, count: int) -> Item:
    """The item with at most `count` more questions after its own, always the same for the same document.

    Each quotes four words of the document that stand there once, and the next three are the answer; of the seven
    only the last may end in a full stop, "?" or "!". A text of few words has fewer of them.
    """
    words = [(m.group(), m.start(), m.end()) for m in re.finditer(r"\S+", item.document)]
    starts = list(range(len(words) - _CUE - _ANSWER + 1))
    random.Random(item.document).shuffle(starts)
    found: list[Question] = []
    for start in starts:
        if len(found) == count:
            break
        cue, rest = words[start : start + _CUE], words[start + _CUE : start + _CUE + _ANSWER]
        quoted = item.document[cue[0][1] : cue[-1][2]]
        answer = item.document[rest[0][1] : rest[-1][2]].strip(_EDGES)
        ended = any(word[-1] in ".!?" for word, _, _ in (*cue, *rest[:-1]))
        if not answer or ended or '"' in quoted or item.document.count(quoted) > 1:
            continue
        found.append(Question(f'Which words follow "{quoted}"?', (answer,)))
    return replace(item, questions=(*item.questions, *found))
