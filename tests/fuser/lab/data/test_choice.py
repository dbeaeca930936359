import pytest

from fuser.prompts.choice import named


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" b. ", "B"),
        ("(C)", "C"),
        ('"D"', "D"),
        ("**A**", "A"),
        ("The correct answer is B", "B"),
        ("the correct answer is: B.\n", "B"),
        ("The correct answer is B. cork", None),
        ("The answer is B", None),
        ("B or C", None),
        ("Because", None),
        ("cork", None),
        ("", None),
        ("The correct answer is", None),
    ],
)
def test_a_letter_is_named_in_the_form_that_was_asked_for_alone(text: str, letter: str | None) -> None:
    assert named(text, "ABCD") == letter


def test_letters_beyond_the_choices_are_not_named() -> None:
    assert named("D", "ABC") is None and named("E", "ABCDE") == "E"


def test_a_reply_of_blanks_without_end_is_read_at_once() -> None:
    assert named("The correct answer is" + " " * 200_000 + "x", "ABCD") is None
    assert named("A" + " '" * 100_000 + "x", "ABCD") is None
