"""The first line of what a model says, whatever pieces it comes in."""

import random

import pytest

from edge_node.answer import FirstLine
from tests.in_one_process import first_line

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
