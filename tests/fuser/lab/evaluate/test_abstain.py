"""A question without an answer in its document: inventing is told from saying nothing of it."""

from fuser.lab.evaluate.abstain import abstaining
from fuser.lab.evaluate.prediction import Prediction
from fuser.lab.evaluate.questions import DocumentQuestion

ASKED = DocumentQuestion(
    "q", "notes", "Otto Bram keeps the red boat in Tresna.", "Where is the red key?", ("x",)
)


def marks(said: str, alone: str = "The bay", row: str = "fused") -> dict[str, float]:
    said_both = [Prediction("receiver", "q", alone, {}), Prediction(row, "q", said, {"f1": 0.5})]
    found = abstaining(said_both, [ASKED])
    return dict(next(p for p in found if p.row == row).right)


def test_a_string_of_the_wrong_document_is_an_invention() -> None:
    invented = {"abstains": 0.0, "invents": 1.0, "f1": 0.5}
    for said in ("Tresna", "in tresna.", "the TRESNA!"):
        assert marks(said) == marks(said, row="text") == invented


def test_parts_of_words_words_of_the_question_and_no_words_are_none() -> None:
    for said in ("Tres", "the red", "", "unknown", "from Tresna"):
        assert marks(said) == {"abstains": 1.0, "invents": 0.0, "f1": 0.5}


def test_what_the_receiver_says_alone_is_no_invention_of_the_slice() -> None:
    assert marks("Otto Bram", alone="Otto Bram.") == {"abstains": 1.0, "invents": 1.0, "f1": 0.5}


def test_without_the_receivers_own_answers_only_the_document_decides() -> None:
    (found,) = abstaining([Prediction("fused", "q", "Otto", {})], [ASKED])
    assert dict(found.right) == {"abstains": 0.0, "invents": 1.0}
