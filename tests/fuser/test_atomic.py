"""Files that are there whole or not at all."""

from pathlib import Path

import pytest

from fuser.atomic import atomic_write, whole_lines


def test_a_file_is_replaced_when_it_is_whole_and_left_alone_when_its_writer_fails(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    with atomic_write(path) as partial:
        partial.write_text("one")
        assert not path.exists()
    with pytest.raises(OSError, match="full"), atomic_write(path) as partial:
        partial.write_text("tw")
        raise OSError("disk full")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_line_that_was_not_ended_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lines"
    assert whole_lines(path) == []
    path.write_bytes(b"one\ntwo\nthr")
    assert whole_lines(path) == [b"one", b"two"]
    assert path.read_bytes() == b"one\ntwo\n"
