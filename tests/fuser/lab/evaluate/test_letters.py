"""Which letter an answer means."""

import pytest

from fuser.lab.evaluate.letters import lenient


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The correct answer is B", "B"),
        ("the correct answer is: (C).", "C"),
        ("Answer: D", "D"),
        (
            "The answer is Because it floats",
            "B",
        ),  # the public evaluator's leniency: the first capital that is one
        ("the answer is because of D", "D"),
        ("I considered A and B. The correct answer is C, not D.", "C"),
        ("答案：B", "B"),
        ("B", "B"),
        (" b.", "B"),
        ("It floats, so C.", "C"),
        ("A) lead", "A"),
        ("x = a + b: C", None),  # signs of maths and no word for answering: no letter stands for an answer
        ("x = a + b, so the choice is C", "C"),
        ("using A", None),  # "sin" is taken for maths, wherever it stands
        ("Answer: B. Or is it that the correct answer is C?", "B"),
        ("The answer is unknown.\nCork, A.", "A"),
        ("The answer is\nB", "B"),
        ("A. lead, B. cork. It", "B"),
        ("Take C as lead is a metal", "A"),
        ("D2O", "D"),
        ("It is cork, the B choice", "B"),
        ("Dogs", "D"),
        ("nothing here", None),
        ("", None),
        ("E", None),
    ],
)
def test_the_lenient_reading_takes_the_most_telling_letter(text: str, letter: str | None) -> None:
    assert lenient(text, "ABCD") == letter


def test_letters_beyond_the_choices_are_not_read() -> None:
    assert lenient("The correct answer is E", "ABCDE") == "E"
    assert lenient("The correct answer is D", "ABC") is None
