"""Exact match and F1 as the official SQuAD script counts them; inventing is told from saying nothing."""

import pytest

from fuser.lab.evaluate.prediction import Prediction
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.lab.evaluate.score import abstaining, exact_match, f1, first_line, marks, marks_of_parts, normalise

ASKED = DocumentQuestion(
    "q", "notes", "Otto Bram keeps the red boat in Tresna.", "Where is the red key?", ("x",)
)


def test_normalising_drops_case_punctuation_articles_and_spare_spaces() -> None:
    assert normalise("  The U.S. President's  a-team, an Ant!") == "us presidents ateam ant"
    assert normalise("theatre analog") == "theatre analog"


def test_exact_match_ignores_case_articles_and_punctuation_only() -> None:
    assert exact_match("The  Tarn Bridge.", ["tarn bridge"])
    assert not exact_match("Tarn Bridges", ["Tarn Bridge"])


def test_the_best_of_several_right_answers_counts() -> None:
    assert marks("bay 14", ["dock", "Bay 14!"]) == {"exact_match": 1.0, "f1": 1.0, "contains": 1.0}
    assert marks("red boat", ["house", "a red boat house", "blue boat"])["f1"] == pytest.approx(0.8)


def test_f1_counts_a_word_as_often_as_both_say_it() -> None:
    assert f1("new new york", ["new york"]) == pytest.approx(0.8)  # precision 2/3, recall 1
    assert f1("", ["red"]) == 0.0
    assert f1("blue", ["red"]) == 0.0


@pytest.mark.parametrize(
    ("said", "right", "contained"),
    [
        ("The boat is called the Grey Petrel.", ["grey petrel"], 1.0),
        ("room 3170", ["Room 317", "317"], 0.0),
        ("evergreen", ["green"], 0.0),
        ("It costs 27400.", ["27,400"], 1.0),
        ("", ["the"], 0.0),
    ],
)
def test_an_answer_contains_whole_words_of_a_right_one(said: str, right: list[str], contained: float) -> None:
    assert marks(said, right)["contains"] == contained


def test_the_first_line_that_is_not_empty_is_the_answer() -> None:
    assert first_line("\n bay 14\nQuestion: and then?") == "bay 14"
    assert first_line("") == ""


def marked(said: str, alone: str = "The bay", row: str = "fused") -> dict[str, float]:
    said_both = [Prediction("receiver", "", "q", alone, {}), Prediction(row, "", "q", said, {"f1": 0.5})]
    found = abstaining(said_both, [ASKED])
    return dict(next(p for p in found if p.row == row).right)


def test_a_string_of_the_wrong_document_is_an_invention() -> None:
    invented = {"abstains": 0.0, "invents": 1.0, "f1": 0.5}
    for said in ("Tresna", "in tresna.", "the TRESNA!"):
        assert marked(said) == marked(said, row="text") == invented


def test_parts_of_words_words_of_the_question_and_no_words_are_none() -> None:
    for said in ("Tres", "the red", "", "unknown", "from Tresna"):
        assert marked(said) == {"abstains": 1.0, "invents": 0.0, "f1": 0.5}


def test_what_the_receiver_says_alone_is_no_invention_of_the_slice() -> None:
    assert marked("Otto Bram", alone="Otto Bram.") == {"abstains": 1.0, "invents": 1.0, "f1": 0.5}


def test_without_the_receivers_own_answers_only_the_document_decides() -> None:
    (found,) = abstaining([Prediction("fused", "", "q", "Otto", {})], [ASKED])
    assert dict(found.right) == {"abstains": 0.0, "invents": 1.0}


def test_of_an_answer_in_two_parts_both_count_in_any_order_and_a_whole_word_each() -> None:
    parts = ("Oslo", "1,874")
    for said, both, share in (
        ("Oslo, 1,874", 1.0, 1.0),
        ("1874 in Oslo.", 1.0, 1.0),
        ("Oslo", 0.0, 0.5),
        ("Oslofjord 18740", 0.0, 0.0),
    ):
        assert marks_of_parts(said, parts) == {"both": both, "parts": share}
