"""The stage: what its nodes have to themselves, and what lies on the cloud's disk before they start."""

import os
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloud_node import CloudConfig
from ops.cli import app
from ops.demo.cores import halves
from ops.demo.process import NodeFailed, NodeProcess
from ops.demo.samples import load_samples
from ops.demo.stage import Cast, DemoStage


def test_each_node_has_a_half_of_the_cores_and_as_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5, 8, 9})
    cores = halves()
    assert cores == {"cloud": [2, 3], "edge": [5, 8, 9]}
    DemoStage(tmp_path, Cast("s", "r", tmp_path, "raw", device="cpu"), (), cores=cores)
    cloud, edge = (
        tomllib.loads((tmp_path / name / f"{name}.toml").read_text()) for name in ("cloud", "edge")
    )
    assert cloud["sharer"]["cpus"] == 2.0 and edge["receiver"]["threads"] == 3


@pytest.mark.parametrize("cores", [{4}, None])
def test_nodes_that_cannot_have_a_core_each_are_refused_before_a_model_is_looked_for(
    cores: set[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cores is None:
        monkeypatch.delattr(os, "sched_setaffinity")
    else:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    done = CliRunner().invoke(app, ["bench", "local", "--pin", "--sharer", "no-such-model"])
    assert isinstance(done.exception, ValueError) and str(done.exception).startswith("--pin: ")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux alone has it")
def test_a_node_runs_on_the_cores_that_it_is_given(tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    node = NodeProcess("cloud", tmp_path / "none.toml", tmp_path / "log", [core])
    try:
        assert os.sched_getaffinity(node.pid) == {core}
    finally:
        node.kill()


@pytest.mark.timeout(200)
def test_documents_that_are_read_lie_on_the_clouds_disk_before_it_starts(
    tiny_sharer: Path, tiny_receiver: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    cast = Cast(str(tiny_sharer), str(tiny_receiver), tiny_bundle, "raw")
    stage = DemoStage(tmp_path, cast, load_samples()[:2])
    files = CloudConfig.load(tmp_path / "cloud" / "cloud.toml").prefix_files
    assert files is not None and files.bytes == 0
    stage.read_documents()
    assert files.bytes > 0
    with pytest.raises(NodeFailed, match=r"not all of the documents were read: .*'there': 2"):
        stage.read_documents()
