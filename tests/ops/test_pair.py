"""A pair of one's own from the command line, on the tiny pair: to its end, through a kill, and refused early."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cloud_node import CloudConfig
from edge_node import EdgeConfig
from fuser.bundle.bundle import Bundle
from fuser.bundle.plans import PlanTable
from fuser.lab.data.load import load
from fuser.lab.pair.run import ASKED, ESTIMATE, RECIPE
from fuser.lab.train.log import read_log
from kvwire.errors import Unsupported
from ops.cli import app
from tests.fuser.lab.pair.families import BAD, save_config
from tests.fuser.lab.pair.test_texts import NAMES, note
from tests.process import modules_after


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of three paragraphs, each about other people."""
    directory = tmp_path_factory.mktemp("texts") / "notes"
    directory.mkdir()
    for number, name in enumerate(NAMES, 3):
        for turn, ending in enumerate("aei"):
            text = "\n\n".join(note(name + ending + each, number + 10 * turn) for each in "xyz")
            (directory / f"{name}{ending}.txt").write_text(text, encoding="utf-8")
    return directory


def line(sharer: Path, receiver: Path, notes: Path, out: Path, *more: str) -> list[str]:
    return [
        "pair",
        str(sharer),
        str(receiver),
        "--data",
        str(notes),
        "--out",
        str(out),
        "--minutes",
        "0.05",
        *more,
    ]


def said(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_a_pair_that_was_killed_goes_on_to_a_bundle_with_its_page(
    tiny_sharer: Path, tiny_receiver: Path, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVWIRE_CACHE", str(tmp_path / "cache"))
    out, work = tmp_path / "bundle", tmp_path / "bundle.work"
    asked = line(tiny_sharer, tiny_receiver, notes, out)
    answers = work / "stages" / "answers"
    process = subprocess.Popen([sys.executable, "-m", "ops.cli", *asked], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while sum(row["stage"] == "step" for row in read_log(answers)) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    _, told = process.communicate()
    assert process.returncode == -signal.SIGKILL, told
    assert "36 documents." in told and "steps of 8 questions fit" in told  # before the first stage
    assert told.index("steps of 8 questions fit") < told.index(
        "stage answers (train)", told.index("36 documents.")
    )

    kept = {name: (work / name).read_bytes() for name in (ESTIMATE, RECIPE, ASKED)}
    found = said(*asked)
    assert kept == {name: (work / name).read_bytes() for name in kept}
    assert [row["stage"] for row in read_log(answers)].count("start") == 1

    bundle = Bundle.load(out)
    assert bundle.hash == found["bundle"] and {kind.value for kind in bundle.kinds} == {"excerpt", "draft"}
    rows = {row["row"] for row in found["report"]["rows"]}
    assert rows >= {
        "receiver",
        "text",
        "fused",
        "mismatched",
        "zeroed",
        "random",
        "drafted",
        "drafted-mismatched",
    }
    page = (out / "report.md").read_text(encoding="utf-8")
    assert found["table"] in page and "(losses.png)" in page
    for kind in ("excerpt", "draft"):
        assert f"({kind}_transfer.png)" in page
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in out.glob("*.png"))
    assert {row.kind.value for row in PlanTable.load(out).rows} == {"excerpt", "draft"}
    cloud, edge = CloudConfig.load(out / "cloud.toml"), EdgeConfig.load(out / "edge.toml")
    assert (cloud.sharer.bundles, cloud.sharer.model) == ((str(out),), str(tiny_sharer))
    assert (edge.receiver.bundle, edge.receiver.model) == (str(out), str(tiny_receiver))
    assert {kind.value for kind in cloud.export.kinds} == {"excerpt", "draft"}
    assert edge.share.kind == "excerpt"

    texts = {
        name: {i.document for i in load(str(work / "data" / f"{name}.jsonl"))}
        for name in ("train", "heldout")
    }
    assert texts["train"] and texts["heldout"] and not texts["train"] & texts["heldout"]
    (out / "edge.toml").write_text("# mine\n", encoding="utf-8")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib.figure", None)
        done = CliRunner().invoke(
            app, asked, catch_exceptions=False
        )  # all is made: only the page is written anew
    assert "they need matplotlib" in done.stderr and found["table"] in done.stdout
    assert ".png" not in (out / "report.md").read_text(encoding="utf-8")
    assert (out / "edge.toml").read_text(encoding="utf-8") == "# mine\n"
    with pytest.raises(ValueError, match=r"was begun with minutes 0\.05 and not 9\.0"):
        said(*asked[:-1], "9")


def test_the_estimate_alone_says_what_fits_and_trains_nothing(
    tiny_sharer: Path, tiny_receiver: Path, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVWIRE_CACHE", str(tmp_path / "cache"))
    found = said(*line(tiny_sharer, tiny_receiver, notes, tmp_path / "b", "--estimate", "--kinds", "excerpt"))
    estimate = found["estimate"]
    assert estimate["documents"] == 36
    assert estimate["sizes"]["drafted"] == 0
    assert estimate["questions"] > 0 and estimate["positions"] > 0 and estimate["cache_bytes"] > 0
    assert not (tmp_path / "b").exists() and not (tmp_path / "b.work" / "stages").exists()


def test_a_model_that_cannot_be_in_a_pair_is_refused_before_anything_is_written(
    tiny_receiver: Path, notes: Path, tmp_path: Path
) -> None:
    sharer = save_config(tmp_path / "gpt2", BAD["gpt2"][0]())
    with pytest.raises(
        Unsupported, match="cannot be the Sharer: models of type gpt2 have no rotary positions"
    ):
        said(*line(sharer, tiny_receiver, notes, tmp_path / "bundle"))
    assert not (tmp_path / "bundle.work").exists()


def test_kinds_of_slice_that_are_not_of_documents_are_refused_by_name(
    tiny_sharer: Path, tiny_receiver: Path, notes: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="kinds are excerpt and draft, not shared"):
        said(*line(tiny_sharer, tiny_receiver, notes, tmp_path / "bundle", "--kinds", "shared"))


def test_the_help_comes_without_torch() -> None:
    code = "from ops.cli import app\ntry: app(['pair', '--help'])\nexcept SystemExit: pass"
    assert not {"torch", "transformers", "matplotlib"} & set(modules_after(code))
