"""The log of a run: a resumed run writes each step once."""

import logging
import sys
from pathlib import Path

import pytest

from fuser.lab.train.log import LOG, RunLog, read_log


def _write(directory: Path, first: int, last: int) -> None:
    log = RunLog(directory, first)
    for step in range(first, last):
        log.write("step", step, {"task": "one", "loss": float(step), "inside": {"exact": 0.5}})
    log.close()


def test_a_resumed_run_writes_each_step_once(tmp_path: Path) -> None:
    _write(tmp_path, 0, 6)
    with (tmp_path / LOG).open("a", encoding="utf-8") as log:
        log.write('{"stage": "step", "st')  # a kill while it was written
    _write(tmp_path, 4, 8)
    with (tmp_path / LOG).open("a", encoding="utf-8") as log:
        log.write("\0\0\n3\n")  # a machine that lost power
    assert [row["step"] for row in read_log(tmp_path)] == list(range(8))


def test_numbers_become_curves(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _write(tmp_path, 0, 3)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["step/inside/exact", "step/loss"]
    assert [event.value for event in events.Scalars("step/loss")] == [0.0, 1.0, 2.0]


def test_without_tensorboard_the_run_is_logged_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with caplog.at_level(logging.WARNING):
        _write(tmp_path, 0, 2)
    assert "not installed" in caplog.text
    assert len(read_log(tmp_path)) == 2
