"""A recipe from the command line, on the tiny pair: to its end, through a kill, and in two workers as in one."""

import json
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

from fuser.bundle.bundle import Bundle
from fuser.lab.train.log import read_log
from ops.cli import app
from tests.process import python

CONFIG = """
sharer = "{sharer}"
receiver = "{receiver}"
work = "{work}"
output = "{output}"
lead = "Read.\\n"
regression_positions = 400
[translate]
code_dim = 16
prefix_positions = 6
[fuse]
rank = 4
inner = 8
[selection]
positions = 8
[answer]
batch = 4
validation = 8
checkpoint_every = 3
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
[sources.records]
source = "records:train"
documents = 12
[sources.held]
source = "records:heldout"
documents = 6
validation = true
[sources.sums]
source = "{instructions}"
documents = 10
task = "shared"
[[stage]]
name = "first"
kind = "train"
answer.steps = 3
answer.evaluate_every = 3
[[stage]]
name = "heads"
kind = "train"
answer.steps = {steps}
answer.evaluate_every = {steps}
seed = 2
[[stage]]
name = "codecs"
kind = "calibrate"
calibrate = {{ positions = 200, rates = [2] }}
"""


class Place:
    """A folder with recipes; all of a test share one training cache."""

    def __init__(self, folder: Path, sharer: Path, receiver: Path) -> None:
        self.folder = folder
        self.pair = {"sharer": sharer, "receiver": receiver}
        rows = [
            {"instruction": f"What is {n} and {n}?", "input": "", "output": f"{2 * n}"} for n in range(12)
        ]
        self.instructions = folder / "instructions.jsonl"
        self.instructions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def recipe(self, name: str, steps: int = 6) -> Path:
        path = self.folder / f"{name}.toml"
        places = {"work": self.folder / name, "output": self.folder / f"{name}-bundle"}
        values = self.pair | places | {"instructions": self.instructions, "steps": steps}
        path.write_text(CONFIG.format(**values), encoding="utf-8")
        return path

    def steps(self, name: str, stage: str = "step") -> list[dict[str, Any]]:
        """Of the second stage."""
        rows = [row for row in read_log(self.folder / name / "heads") if row["stage"] == stage]
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


def states(*arguments: str | Path) -> dict[str, str]:
    found = json.loads(kvwire("train", *arguments, "--dry-run", "--json").stdout)
    return {row["stage"]: row["state"] for row in found}


def test_a_recipe_is_made_to_its_end_and_says_how_far_it_is(place: Place) -> None:
    recipe = place.recipe("run")
    assert states(recipe) == {"first": "to do", "heads": "to do", "codecs": "to do"}
    assert not (place.folder / "run").exists()
    assert said("train", recipe, "--max-minutes", "0") == {"finished": False, "stage": "first"}
    done = said("train", recipe)
    assert done["finished"]
    assert states(recipe) == {"first": "done", "heads": "done", "codecs": "done"}
    bundle = Bundle.load(done["output"])
    assert bundle.hash == done["bundle"]
    assert {kind.value for kind in bundle.kinds} == {"shared", "excerpt", "draft"}
    assert [codec.name for codec in bundle.codecs()] == ["transform-2"]
    assert {row["task"] for row in place.steps("run")} == {"document", "shared"}
    rows = place.steps("run", "validation")
    assert {(row["task"], row["step"]) for row in rows} == {
        (task, step) for task in ("document", "shared") for step in (0, 6)
    }
    assert {"true", "mismatched", "alone"} <= rows[0].keys()
    assert list((place.folder / "run" / "heads" / "tensorboard").iterdir())
    assert "codecs" in kvwire("train", recipe, "--dry-run").stdout


def test_a_value_on_the_command_line_is_another_recipe(place: Place) -> None:
    recipe = place.recipe("run")
    few = "--set", "answer.validation=4", "--set", "stage.heads.answer.steps=3"
    assert said("train", recipe, *few)["finished"]
    assert len(place.steps("run")) == 3
    with pytest.raises(ValueError, match=r"stage first: answer\.validation was 4 and is 8"):
        kvwire("train", recipe)
    with pytest.raises(ValueError, match=r"unknown key answer\.step;"):
        kvwire("train", recipe, "--set", "answer.step=3")


def test_a_process_that_was_killed_is_gone_on_with_bit_for_bit(place: Place) -> None:
    said("train", place.recipe("straight", steps=14))
    recipe = place.recipe("killed", steps=14)
    process = subprocess.Popen([sys.executable, "-m", "ops.cli", "train", str(recipe)])
    deadline = time.monotonic() + 120
    while len(place.steps("killed")) < 5 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    state = states(recipe)
    assert state["first"] == "done" and state["heads"].startswith("at step ") and state["codecs"] == "to do"
    assert said("train", recipe)["finished"]
    for stage in ("start", "step", "validation"):
        assert place.steps("killed", stage) == place.steps("straight", stage)
    bundles = [Bundle.load(place.folder / f"{name}-bundle") for name in ("straight", "killed")]
    assert bundles[0].hash == bundles[1].hash


def _heed_ctrl_c() -> None:
    """Of a child: what is started by a background job inherits that the signal is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_says_how_to_go_on_and_how_to_have_the_bundle_as_it_is(place: Place) -> None:
    recipe = place.recipe("stopped", steps=20_000)
    line = [sys.executable, "-m", "ops.cli", "train", str(recipe)]
    process = subprocess.Popen(
        line,
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
    with pytest.raises(ValueError, match="batch is 4: 3 workers cannot share it equally"):
        kvwire("train", place.recipe("run"), "--workers", "3")
    assert not (place.folder / "run").exists()


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_two_workers_take_the_steps_of_one(place: Place) -> None:
    pytest.importorskip("ray.train")
    said("train", place.recipe("alone"))
    recipe = place.recipe("shared")
    done = python("-m", "ops.cli", "train", str(recipe), "--workers", "2", "--json", timeout_s=400)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["finished"]
    alone, together = place.steps("alone"), place.steps("shared")
    assert len(together) == len(alone) == 6
    for one, two in zip(alone, together, strict=True):
        assert (one["task"], one["control"]) == (two["task"], two["control"])
        if one["task"] == "document":  # gates of the shared task are drawn anew by every worker
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert Bundle.load(json.loads(done.stdout)["output"]).hash == json.loads(done.stdout)["bundle"]
