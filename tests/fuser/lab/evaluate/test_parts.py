"""Questions are parted by the length of their answers and by their source."""

from pathlib import Path
from typing import Any

import pytest

from fuser.lab.evaluate.parts import parts
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.models.load import load_tokenizer
from fuser.prompts.prompt import tokenise


@pytest.fixture
def tokenizer(tiny_receiver: Path) -> Any:
    """Makes a token of each digit."""
    return load_tokenizer(tiny_receiver)


def question(name: str, *answers: str, source: str = "notes") -> DocumentQuestion:
    return DocumentQuestion(name, source, "a note", "What?", answers)


def test_an_answer_is_as_long_as_the_shortest_of_the_right_ones(tokenizer: Any) -> None:
    texts = {"one": "7", "two": "75", "five": "12345", "six": "123456"}
    counts = {name: len(tokenise(tokenizer, f" {text}").ids) for name, text in texts.items()}
    assert counts == {"one": 2, "two": 3, "five": 6, "six": 7}, "a token a digit, and one for the blank"
    asked = [question(name, text) for name, text in texts.items()] + [question("both", "123456", "1")]
    assert parts(asked, tokenizer) == {
        "answers of 2-3 tokens": {"one", "two", "both"},
        "answers of more than 5 tokens": {"five", "six"},
        "answers of at most 5 tokens": {"one", "two", "both"},
    }


def test_a_part_that_is_all_or_nothing_is_no_part(tokenizer: Any) -> None:
    assert parts([question("a", "7"), question("b", "8")], tokenizer) == {}
    two = [question("a", "7"), question("b", "8", source="notes, long:512")]
    assert parts(two, tokenizer) == {"notes": {"a"}, "notes, long:512": {"b"}}
