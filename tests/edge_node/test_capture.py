"""A capture is read back as it was written."""

import stat
from pathlib import Path

import pytest

from edge_node.channel import Capture, Captured, Direction, read_capture


def test_messages_come_back_in_order_with_their_direction(tmp_path: Path) -> None:
    path = tmp_path / "new" / "wire.bin"
    for part in (b"", b"\x00" * 5), (b"later",):
        capture = Capture(path)
        for message in part:
            capture.add(Direction.SENT if not message else Direction.RECEIVED, message)
        capture.close()
        capture.add(Direction.SENT, b"closed already")
    assert list(read_capture(path)) == [
        Captured(Direction.SENT, b""),
        Captured(Direction.RECEIVED, b"\x00" * 5),
        Captured(Direction.RECEIVED, b"later"),
    ]


def test_only_the_owner_may_read_a_capture(tmp_path: Path) -> None:
    Capture(tmp_path / "wire.bin").close()
    assert stat.S_IMODE((tmp_path / "wire.bin").stat().st_mode) == 0o600


@pytest.mark.parametrize("cut", [1, 6])
def test_a_capture_that_ends_inside_a_message_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "wire.bin"
    capture = Capture(path)
    capture.add(Direction.SENT, b"message")
    capture.close()
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError):
        list(read_capture(path))
