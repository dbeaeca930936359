"""The mismatched row is a hard control: the stranger asks the same kind of thing about something else."""

import pytest

from fuser.evaluate.mismatched import mismatched
from fuser.evaluate.questions import DocumentQuestion


def asked(document: str, question: str, answer: str) -> DocumentQuestion:
    return DocumentQuestion(f"{document}{question}", "notes", document, question, (answer,))


def test_the_stranger_asks_the_most_alike_question_over_another_document() -> None:
    questions = [
        asked("a", "Who built the bridge over the Tarn?", "Ilse Brandvik"),
        asked("a", "Who built the mill?", "Otto Lind"),
        asked("b", "How many boats are in the harbour?", "12"),
        asked("b", "Who built the bridge in Velmora?", "Dana Whitlock"),
        asked("c", "How many boats sank in the storm?", "3"),
    ]
    assert mismatched(questions) == [3, 3, 4, 0, 2]


def test_the_kind_of_answer_decides_between_questions_that_share_no_word() -> None:
    questions = [
        asked("a", "When did it open?", "1904"),
        asked("b", "When was Otto late?", "on Monday"),
        asked("c", "When was Otto early?", "1898"),
    ]
    assert mismatched(questions)[0] == 2


def test_what_the_answers_say_plays_no_part() -> None:
    names = ("Otto", "Ilse")
    found = [
        mismatched(
            [asked("a", "Who sings?", "Otto"), asked("b", "Who sings?", n), asked("c", "Who swims?", "Otto")]
        )
        for n in names
    ]
    assert found[0] == found[1]


def test_one_document_leaves_nothing_to_mismatch() -> None:
    with pytest.raises(ValueError, match="at least two documents"):
        mismatched([asked("a", "Who?", "Otto"), asked("a", "When?", "1904")])


def test_many_questions_are_compared_in_parts() -> None:
    questions = [asked(f"d{i % 300}", f"What is number {i}?", str(i)) for i in range(600)]
    found = mismatched(questions)
    assert all(questions[i].document != questions[s].document for i, s in enumerate(found))
    assert len(found) == 600


def test_a_longer_document_that_holds_the_questions_own_is_no_stranger() -> None:
    def over(document: str, own: str, question: str, source: str = "notes") -> DocumentQuestion:
        return DocumentQuestion(f"{document}{question}", source, document, question, ("Otto",), own)

    questions = [
        over("a", "a", "Who built the mill?"),
        over("b a", "a", "Who built the mill?", source="notes, long"),
        over("b a", "b", "Who built the mill over there?", source="notes, long"),
        over("c", "c", "When was it?"),
        over("c b", "c", "When was it?", source="notes, long"),
    ]
    assert mismatched(questions) == [3, 4, 0, 0, 1], "of their own source where it has one"
    with pytest.raises(ValueError, match="at least two documents"):
        mismatched(questions[:2])
