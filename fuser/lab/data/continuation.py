"""Questions that any text answers: which words follow these? Dense training for reading, without labels."""

from __future__ import annotations

import random
import re
from dataclasses import replace

from fuser.lab.data.document import Item, Question

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
