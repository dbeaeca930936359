"""Questions are drawn by the seed alone, and none disappears without a reason."""

import pytest

from fuser.lab.data.document import Item, Question
from fuser.lab.evaluate.questions import by_document, draw

ITEMS = [
    Item("notes", f"document {d}", tuple(Question(f"question {d}.{q}", ("yes",)) for q in range(3)))
    for d in range(20)
]


def test_a_smaller_limit_asks_the_first_questions_of_a_larger_one() -> None:
    small, large = draw(ITEMS, 10, seed=4), draw(ITEMS, 25, seed=4)
    assert small.questions == large.questions[:10]
    assert draw(ITEMS, None, seed=4).questions[:25] == large.questions
    assert len(draw(ITEMS, None, seed=4).questions) == 60


def test_another_seed_draws_other_questions() -> None:
    assert draw(ITEMS, 10, seed=4).digest == draw(ITEMS, 10, seed=4).digest
    assert draw(ITEMS, 10, seed=4).digest != draw(ITEMS, 10, seed=5).digest


def test_what_does_not_fit_is_counted_by_its_reason() -> None:
    drawn = draw(ITEMS, None, 1, lambda document, question: "too long" if document.endswith("7") else None)
    assert dict(drawn.left_out) == {"too long": 6}
    assert len(drawn.questions) == 54
    assert len({q.id for q in drawn.questions}) == 54


def test_nothing_left_says_why() -> None:
    with pytest.raises(ValueError, match="60 too long"):
        draw(ITEMS, 5, 1, lambda document, question: "too long")


def test_questions_are_grouped_by_their_document() -> None:
    drawn = draw(ITEMS, 7, 2)
    groups = by_document(drawn.questions)
    assert sorted(index for at in groups.values() for index in at) == list(range(7))
    assert [len(at) for at in groups.values()] == [3, 3, 1]
