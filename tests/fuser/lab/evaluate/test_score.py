"""Exact match and F1 as the official SQuAD script counts them."""

import pytest

from fuser.lab.evaluate.score import exact_match, f1, marks, normalise


def test_normalising_drops_case_punctuation_articles_and_spare_spaces() -> None:
    assert normalise("  The U.S. President's  a-team, an Ant!") == "us presidents ateam ant"
    assert normalise("theatre analog") == "theatre analog"


def test_exact_match_ignores_case_articles_and_punctuation_only() -> None:
    assert exact_match("The  Tarn Bridge.", ["tarn bridge"])
    assert not exact_match("Tarn Bridges", ["Tarn Bridge"])


def test_the_best_of_several_right_answers_counts() -> None:
    assert marks("bay 14", ["dock", "Bay 14!"]) == {"exact_match": 1.0, "f1": 1.0}
    assert marks("red boat", ["house", "a red boat house", "blue boat"])["f1"] == pytest.approx(0.8)


def test_f1_counts_a_word_as_often_as_both_say_it() -> None:
    assert f1("new new york", ["new york"]) == pytest.approx(0.8)  # precision 2/3, recall 1
    assert f1("", ["red"]) == 0.0
    assert f1("blue", ["red"]) == 0.0
