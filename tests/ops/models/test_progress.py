"""What a person sees: bars on standard error, or nothing."""

import pytest

from ops.models.progress import Progress


def test_notes_and_bars_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.say("a [note]")
    with progress.task("counting", 10) as advance:
        advance(10)
    with progress.growth("growing") as grown:
        grown(5)
    with progress.step("a step"):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    assert "a [note]" in err


def test_a_silent_one_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(False)
    progress.say("a note")
    with progress.task("counting", 10) as advance, progress.growth("growing") as grown, progress.step("step"):
        advance(10)
        grown(5)
    assert capsys.readouterr() == ("", "")
