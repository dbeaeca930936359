"""Replies that are changed on the way: refused by name, or what is taken in has the same bits."""

import pytest

from kvwire.slice_io import Frame, SliceAssembler
from ops.chaos import frames
from ops.chaos.outcome import Ending
from ops.chaos.world import TinyWorld


def test_no_change_of_a_reply_is_taken_in_as_something_else(world: TinyWorld) -> None:
    told = frames.run(world, 7, range(420), lambda: None).to_dict()
    assert told["violations"] == []
    assert set(told["rows"]) == set(frames.TRICKS)
    assert told["all"]["endings"]["detected"] > 400


def test_a_fault_is_drawn_again_from_its_seed_and_number(world: TinyWorld) -> None:
    corpus = frames.Exchanges(world)
    for index in range(len(frames.TRICKS)):
        assert frames.draw(3, index, corpus)[::2] == frames.draw(3, index, corpus)[::2]


def test_checks_that_are_left_out_are_found_out(world: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof that the proof can fail: without its checksums the edge takes in what is not its own."""
    monkeypatch.setattr(Frame, "computed_checksum", lambda frame, digest: frame.checksum)
    monkeypatch.setattr(SliceAssembler, "finish", lambda assembler, trailer: None)
    told = frames.run(world, 7, range(210), lambda: None).to_dict()
    found = {one["fault"] for one in told["violations"]}
    assert "values shuffled, frames resealed" in found and "one bit flipped" in found
    assert all(one["ending"] == Ending.WRONG for one in told["violations"])


def test_who_holds_the_key_of_the_cloud_is_believed(world: TinyWorld) -> None:
    """A lie told with its own writer: nothing on the wire can tell."""
    assert frames.believed(world, 7, 12) == 12
