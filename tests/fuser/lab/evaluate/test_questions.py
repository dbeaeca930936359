"""Questions are drawn by the seed alone, and none disappears without a reason."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fuser.lab.data.document import Item, Question
from fuser.lab.evaluate.questions import DocumentQuestion, draw, parts, questions_digest
from fuser.models.load import load_tokenizer
from fuser.prompts.prompt import tokenise

ITEMS = [
    Item("notes", f"document {d}", tuple(Question(f"question {d}.{q}", ("yes",)) for q in range(3)))
    for d in range(20)
]


def test_a_smaller_limit_asks_the_first_questions_of_a_larger_one() -> None:
    small, large = draw(ITEMS, 10, seed=4), draw(ITEMS, 25, seed=4)
    assert small == large[:10]
    assert draw(ITEMS, None, seed=4)[:25] == large
    assert len(draw(ITEMS, None, seed=4)) == 60


def test_another_seed_draws_other_questions() -> None:
    assert questions_digest(draw(ITEMS, 10, seed=4)) == questions_digest(draw(ITEMS, 10, seed=4))
    assert questions_digest(draw(ITEMS, 10, seed=4)) != questions_digest(draw(ITEMS, 10, seed=5))


def test_what_does_not_fit_is_counted_by_its_reason() -> None:
    left_out: Counter[str] = Counter()
    twice = [*ITEMS, ITEMS[0]]

    def unfit(asked: DocumentQuestion) -> str | None:
        return "too long" if asked.document.endswith("7") else None

    drawn = draw(twice, None, 1, unfit, left_out=left_out)
    assert left_out == {"too long": 6, "asked twice": 3}
    assert len(drawn) == len({q.id for q in drawn}) == 54


def test_nothing_left_says_why() -> None:
    with pytest.raises(ValueError, match="60 too long"):
        draw(ITEMS, 5, 1, lambda asked: "too long")


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


def test_where_another_name_has_the_value_to_exchange_is_a_part_of_its_own(tokenizer: Any) -> None:
    asked = [
        DocumentQuestion(name, "notes", "Ada has 7, Bo has 8.", f"What has {name}?", ("7",), other=other)
        for name, other in (("a", "8"), ("b", "9"), ("c", ""))
    ]
    found = parts(asked, tokenizer)
    assert found == {"another such value stated": {"a"}, "no other such value stated": {"b"}}
