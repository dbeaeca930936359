"""Questions with a gap."""

import pytest

from fuser.lab.data.cloze import GAP, with_clozes
from fuser.lab.data.document import Item, Question

TEXT = (
    "The parcel for Ilse Brandvik arrived at the depot on Tuesday. It weighed 12.5 kilograms and was put beside the "
    "loading dock. nobody has asked for it since then, or so they say. Maintainers: see the file. "
    "Version 3.1 of the plan was signed by Müller in Oslo!"
)
ITEM = Item("notes", TEXT, (Question("Who?", ("Ilse",)),))


def test_a_cloze_asks_for_a_name_or_a_number_that_stands_where_the_gap_is() -> None:
    own, *added = with_clozes(ITEM, 10).questions
    assert own == ITEM.questions[0]
    assert len(added) == 3  # sentences with a name or a number that is not its first word
    for question in added:
        (answer,) = question.answers
        quoted = question.text.split('"')[1]
        assert quoted.count(GAP) == 1
        assert answer not in quoted
        assert quoted.replace(GAP, answer) in TEXT
        assert answer in {"Ilse Brandvik", "Tuesday", "12.5", "3.1", "Müller", "Oslo"}


def test_clozes_of_a_document_are_always_the_same_and_no_sentence_is_asked_about_twice() -> None:
    assert with_clozes(ITEM, 3) == with_clozes(ITEM, 3)
    assert with_clozes(ITEM, 1).questions == with_clozes(ITEM, 3).questions[:2]


@pytest.mark.parametrize(
    "text", ["", "no names are in here, nor is any number at all.", 'He said "Oslo is 12 km".']
)
def test_a_text_without_names_and_numbers_has_no_clozes(text: str) -> None:
    item = Item("notes", text, ITEM.questions)
    assert with_clozes(item, 3) == item


def test_a_line_break_within_a_sentence_is_a_blank_in_the_question() -> None:
    item = Item("notes", "The spare key\nis kept by Ilse under the third stone.", ())
    (question,) = with_clozes(item, 1).questions
    assert question == Question(
        f'Which word or number fills the blank in "The spare key is kept by {GAP} under the third stone"?',
        ("Ilse",),
    )
