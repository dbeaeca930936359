"""The first line of what was generated is the answer."""

from pathlib import Path

from fuser.lab.evaluate.line import first_line, line_ended
from fuser.lab.evaluate.models import Model


def test_the_first_line_that_is_not_empty_is_the_answer(tiny_receiver: Path) -> None:
    assert first_line("\n bay 14\nQuestion: and then?") == "bay 14"
    assert first_line("") == ""
    tokenizer = Model(str(tiny_receiver)).tokenizer
    ended = line_ended(tokenizer)
    for text, whole in (("\n\n", False), ("\n bay 14", False), ("\n bay 14\n", True), ("bay\n14", True)):
        assert ended(tokenizer(text).input_ids) is whole
