"""Two replicas: on two Ray nodes of which one is lost and comes back, and by autoscaling; edges ask meanwhile."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.cli import app

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("KVWIRE_TEST_CLUSTER") != "1", reason="minutes; set KVWIRE_TEST_CLUSTER=1"
    ),
    pytest.mark.timeout(600),
]


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)


def test_calls_go_on_over_the_other_node_and_the_lost_one_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "chaos.json"
    command = ["chaos", "--part", "processes", "--index", "19", "--json", str(out)]
    assert CliRunner().invoke(app, command).exit_code == 0
    rows = json.loads(out.read_text())["results"]["processes"]["rows"]
    lost, back = rows["raylet of two lost"], rows["raylet of two back"]
    assert lost["endings"]["fused"] >= 0.9 * lost["faults"] > 20
    assert lost["recovery_s"]["most"] < 10 and back["recovery_s"]["n"] == 1


def test_a_crowd_of_callers_has_a_replica_added_that_is_taken_away_after_them(tmp_path: Path) -> None:
    out = tmp_path / "chaos.json"
    command = ["chaos", "--part", "processes", "--index", "20", "--json", str(out)]
    assert CliRunner().invoke(app, command).exit_code == 0
    rows = json.loads(out.read_text())["results"]["processes"]["rows"]
    for row in (rows["replica added"], rows["replica taken away"]):
        assert row["endings"]["fused"] == row["faults"] > 20 and row["recovery_s"]["n"] == 1
