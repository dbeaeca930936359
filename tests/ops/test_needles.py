"""The search of the wire finds what is there, in every form it could have."""

import struct

import pytest

from ops.demo.needles import find, needles_of
from ops.demo.samples import DemoQuestion, DemoSample

SAMPLE = DemoSample(
    id="note",
    text="The cellar of Bramble Hall holds plum wine. The code is zebrolith-9, says the keeper.",
    canary="zebrolith-9",
    questions=(DemoQuestion("What does the cellar hold?", ("plum wine",)),),
)
SAID = "What does the cellar hold?"


def by_bytes(text: str) -> list[int]:
    return [1000 + byte for byte in text.encode()]


NEEDLES = list(needles_of(SAMPLE, SAID, [by_bytes]))
IDS = by_bytes(SAMPLE.text)[10:16]


@pytest.mark.parametrize(
    ("hidden", "what"),
    [
        (b"zebrolith-9", "canary"),
        (b"plum wine", "answer"),
        (b"of Bramble Hall holds", "run of 4 words"),
        (struct.pack("<6I", *IDS), "run of 4 token ids"),
        (struct.pack(">6I", *IDS), "run of 4 token ids"),
        (struct.pack("<6Q", *IDS), "run of 4 token ids"),
        (struct.pack("<6H", *IDS), "run of 4 token ids"),
        (b"".join(bytes((n & 127 | 128, n >> 7)) for n in IDS), "run of 4 token ids"),
    ],
)
def test_what_is_hidden_between_other_bytes_is_found(hidden: bytes, what: str) -> None:
    found = find(NEEDLES, [b"\x00" * 31 + hidden + bytes(range(256))])
    assert what in {needle.what for needle in found}
    assert {needle.document for needle in found} == {"note"}


def test_other_bytes_are_not_taken_for_a_document() -> None:
    noise = bytes((i * 2654435761 >> 7) & 255 for i in range(200_000))
    assert find(NEEDLES, [noise, SAID.encode(), b"", b"zebro", b"lith-9"]) == []


def test_what_the_question_says_is_no_secret() -> None:
    said = "Is there plum wine in the cellar of Bramble Hall? Who says zebrolith-9?"
    assert {needle.what for needle in needles_of(SAMPLE, said, [])} == {"run of 4 words"}
