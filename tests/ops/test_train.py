"""Training from the command line, on the tiny pair: to its end, through a kill, and in two workers as in one."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fuser.bundle import Bundle
from fuser.train.log import read_log
from ops.cli import app

CONFIG = """
sharer = "{sharer}"
receiver = "{receiver}"
work = "{work}"
output = "{output}"
lead = "Read.\\n"
regression_positions = 400
gate_price = 0.001
[translate]
code_dim = 16
prefix_positions = 6
[fuse]
rank = 4
inner = 8
[selection]
positions = 8
[answer]
steps = {steps}
batch = 4
validation = 8
evaluate_every = {steps}
checkpoint_every = 3
[mix]
document = 0.6
shared = 0.4
[sharer_prompt]
opening = "<|im_start|>"
closing = "<|im_end|>"
[sharer_prompt.wraps]
document = ["", "\\n"]
question = ["Question: ", "\\n"]
[receiver_prompt]
opening = "<|im_start|>"
closing = "<|im_end|>"
[receiver_prompt.wraps]
document = ["", ""]
question = ["\\nQuestion: ", "\\nAnswer:"]
[[sources]]
source = "records:train"
documents = 12
[[sources]]
source = "records:heldout"
documents = 6
validation = true
[[sources]]
source = "{instructions}"
documents = 10
task = "shared"
"""


class Place:
    """A folder with a run's config; every run of a test shares one training cache."""

    def __init__(self, folder: Path, sharer: Path, receiver: Path) -> None:
        self.folder = folder
        self.pair = {"sharer": sharer, "receiver": receiver}
        rows = [
            {"instruction": f"What is {n} and {n}?", "input": "", "output": f"{2 * n}"} for n in range(12)
        ]
        self.instructions = folder / "instructions.jsonl"
        self.instructions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def config(self, name: str, steps: int = 6) -> Path:
        path = self.folder / f"{name}.toml"
        places = {"work": self.folder / name, "output": self.folder / f"{name}-bundle"}
        values = self.pair | places | {"instructions": self.instructions, "steps": steps}
        path.write_text(CONFIG.format(**values), encoding="utf-8")
        return path

    def steps(self, name: str, stage: str = "step") -> list[dict[str, Any]]:
        rows = [row for row in read_log(self.folder / name) if row["stage"] == stage]
        return [{key: value for key, value in row.items() if key != "time"} for row in rows]


@pytest.fixture
def place(tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("KVWIRE_CACHE", str(tmp_path / "cache"))
    return Place(tmp_path, tiny_sharer, tiny_receiver)


def kvwire(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def said(*arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kvwire(*arguments, "--json").stdout)
    return found


def test_a_bundle_is_trained_in_slices_of_time(place: Place) -> None:
    config = place.config("run")
    dry = said("cache", config, "--dry-run")
    assert dry["items added"] == 0
    assert 0 < dry["bytes needed"] < dry["bytes free"]
    with pytest.raises(RuntimeError, match=f"run `kvwire cache {config}` first"):
        kvwire("train", config)
    cached = said("cache", config)
    assert (cached["items added"], cached["items left"]) == (dry["items left"], 0)
    again = said("cache", config)
    assert (again["items added"], again["bytes needed"]) == (0, 0)

    stopped = said("train", config, "--max-minutes", "0")
    assert (stopped["finished"], stopped["step"]) == (False, 0)
    done = said("train", config)
    assert (done["finished"], done["step"]) == (True, 6)
    bundle = Bundle.load(done["output"])
    assert bundle.hash == done["bundle"] != stopped["bundle"]
    assert {kind.value for kind in bundle.kinds} == {"shared", "excerpt"}
    assert {row["task"] for row in place.steps("run")} == {"document", "shared"}
    rows = place.steps("run", "validation")
    assert {(row["task"], row["step"]) for row in rows} == {
        (task, step) for task in ("document", "shared") for step in (0, 6)
    }
    assert {"true", "mismatched", "alone"} <= rows[0].keys()
    assert list((place.folder / "run" / "tensorboard").iterdir())


def test_a_process_that_was_killed_is_gone_on_with_bit_for_bit(place: Place) -> None:
    said("cache", place.config("straight", steps=14))
    said("train", place.config("straight", steps=14))
    config = place.config("killed", steps=14)
    for wanted in (5, 9):
        process = subprocess.Popen([sys.executable, "-m", "ops.cli", "train", str(config)], env=os.environ)
        deadline = time.monotonic() + 120
        while len(place.steps("killed")) < wanted and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert said("train", config)["finished"]
    for stage in ("start", "step", "validation"):
        assert place.steps("killed", stage) == place.steps("straight", stage)
    bundles = [Bundle.load(place.folder / f"{name}-bundle") for name in ("straight", "killed")]
    assert bundles[0].hash == bundles[1].hash


def _heed_ctrl_c() -> None:
    """Of a child: what is started by a background job inherits that the signal is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_says_how_to_go_on_and_how_to_have_the_bundle_as_it_is(place: Place) -> None:
    config = place.config("stopped", steps=20_000)
    said("cache", config)
    line = [sys.executable, "-m", "ops.cli", "train", str(config)]
    process = subprocess.Popen(
        line,
        env=os.environ,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_ctrl_c,
    )
    deadline = time.monotonic() + 120
    while len(place.steps("stopped")) < 3 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    told = ""
    while not told:  # a library may swallow one
        assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            _, told = process.communicate(timeout=5)
    assert process.returncode == 130, told
    assert "go on from the last checkpoint" in told and "--max-minutes 0" in told


def test_what_workers_lack_is_told_before_they_start(place: Place) -> None:
    config = place.config("run")
    with pytest.raises(RuntimeError, match=f"run `kvwire cache {config}` first"):
        kvwire("train", config, "--workers", "2")
    with pytest.raises(ValueError, match="batch is 4: 3 workers cannot share it equally"):
        kvwire("train", config, "--workers", "3")


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_two_workers_take_the_steps_of_one(place: Place) -> None:
    pytest.importorskip("ray.train")
    said("cache", place.config("alone"))
    said("train", place.config("alone"))
    config = place.config("shared")
    command = [sys.executable, "-m", "ops.cli", "train", str(config), "--workers", "2", "--json"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["finished"]
    alone, together = place.steps("alone"), place.steps("shared")
    assert len(together) == len(alone) == 6
    for one, two in zip(alone, together, strict=True):
        assert (one["task"], one["control"]) == (two["task"], two["control"])
        if one["task"] == "document":  # gates of the shared task are drawn anew by every worker
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert Bundle.load(json.loads(done.stdout)["output"]).hash == json.loads(done.stdout)["bundle"]
