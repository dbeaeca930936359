"""Byte strings that must not be on the wire: everything of a document that could be recognised there."""

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ops.demo.samples import DemoSample

WORDS = 4
TOKENS = 4
SHORTEST = 5
"""Bytes. Shorter ones occur by chance in a megabyte of numbers."""

_WORD = re.compile(r"\w[\w'-]*")


@dataclass(frozen=True, slots=True)
class Needle:
    """One byte string to look for, and what it is: never its text, so that a report can be shown."""

    data: bytes
    what: str
    document: str


def needles_of(
    sample: DemoSample, said: str, tokenisers: Iterable[Callable[[str], Sequence[int]]]
) -> Iterator[Needle]:
    """All of one document's: canary, answers, runs of four words, runs of four token ids in five encodings.

    Args:
        said: everything the edge says of itself (all questions). What stands there is no secret of the cloud.
        tokenisers: text -> token ids, one for each model.
    """
    texts = [("canary", sample.canary)]
    texts += [("answer", answer) for question in sample.questions for answer in question.answers]
    texts += [(f"run of {WORDS} words", run) for run in _runs_of_words(sample.text)]
    for what, text in texts:
        if text not in said and len(data := text.encode()) >= SHORTEST:
            yield Needle(data, what, sample.id)
    for tokenise in tokenisers:
        ids, known = list(tokenise(sample.text)), list(tokenise(said))
        runs_said = {tuple(known[i : i + TOKENS]) for i in range(len(known) - TOKENS + 1)}
        for start in range(len(ids) - TOKENS + 1):
            run = ids[start : start + TOKENS]
            if tuple(run) not in runs_said:
                for data in _encodings(run):
                    yield Needle(data, f"run of {TOKENS} token ids", sample.id)


def find(needles: Iterable[Needle], haystacks: Iterable[bytes]) -> list[Needle]:
    """The needles that stand in a haystack. One pass over each haystack, however many needles."""
    by_start: dict[bytes, list[Needle]] = {}
    for needle in needles:
        by_start.setdefault(needle.data[:SHORTEST], []).append(needle)
    found: dict[Needle, None] = {}
    for haystack in haystacks:
        for place in range(len(haystack) - SHORTEST + 1):
            for needle in by_start.get(haystack[place : place + SHORTEST], ()):
                if haystack.startswith(needle.data, place):
                    found[needle] = None
    return list(found)


def _runs_of_words(text: str) -> Iterator[str]:
    words = [match.span() for match in _WORD.finditer(text)]
    for first, last in zip(words, words[WORDS - 1 :], strict=False):
        yield text[first[0] : last[1]]


def _encodings(ids: Sequence[int]) -> Iterator[bytes]:
    for code in ("<I", ">I", "<Q"):
        yield b"".join(struct.pack(code, number) for number in ids)
    if max(ids) < 1 << 16:
        yield b"".join(struct.pack("<H", number) for number in ids)
    yield b"".join(map(_varint, ids))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
