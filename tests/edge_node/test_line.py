"""The first line of what a model says, whatever pieces it comes in."""

import random

import pytest

from edge_node.answer import FirstLine
from ops.chaos.in_one_process import first_line

TEXTS = [
    "",
    " \n\t\n ",
    "42",
    "  42  ",
    "\n\n 42 km\t\nand more\n",
    "图书馆 在河边。\r\nMore",
    " a \n",
    "a\n\nb",
    " two  blanks inside \n",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_line_does_not_depend_on_the_pieces(text: str) -> None:
    draw = random.Random(0)
    for _ in range(50):
        line, said, rest = FirstLine(), "", text
        while rest and not line.ended:
            cut = draw.randint(1, 4)
            piece, rest = rest[:cut], rest[cut:]
            said += line.add(piece)
            assert said == said.strip()
        assert said == first_line(text)
        assert line.ended == ("\n" in text.lstrip())
        if line.ended:
            assert line.add("more") == ""


STOPPED = [
    ("one END two", ["END"], "one"),
    ("one EN", ["END"], "one EN"),
    ("one EN\n", ["END"], "one EN"),
    ("aab aabaaabb", ["aaab"], "aab aab"),
    ("x.", [".", "x."], ""),
    ("  . x", ["."], ""),
    ("a  b", ["  "], "a"),
    ("one\nEND", ["END"], "one"),
    ("图书馆在河边。完", ["河边", "。"], "图书馆在"),
    ("xabc", ["abc", "b"], "xa"),
    ("never  so ", ["of"], "never  so"),
]


@pytest.mark.parametrize(("text", "stops", "expected"), STOPPED)
def test_a_stop_string_ends_the_line_whatever_pieces_it_comes_in(
    text: str, stops: list[str], expected: str
) -> None:
    draw = random.Random(1)
    for _ in range(50):
        line, said, rest = FirstLine(stops), "", text
        while rest and not line.ended:
            cut = draw.randint(1, 4)
            piece, rest = rest[:cut], rest[cut:]
            said += line.add(piece)
            assert expected.startswith(said)
        assert said + line.rest() == expected
        assert line.rest() == line.add("more") == ""
