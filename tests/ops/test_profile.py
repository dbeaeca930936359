"""`kvwire profile` from the command line, on the tiny pair."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fuser.bundle.plans import PlanTable
from ops.cli import app


@pytest.fixture
def call(tiny_bundle: Path, tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path) -> Any:
    """Runs `kvwire profile` on a copy of the tiny bundle in tmp_path / "bundle"."""
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    told = {"sharer": tiny_sharer, "receiver": tiny_receiver, "work": tmp_path / "work"}
    told |= {"questions": 4, "screened": 2, "plans": 2}
    told |= {
        "dials.codecs": "int8",
        "dials.positions": "12,3",
        "dials.code_dims": "24,6",
        "dials.fit": "false",
    }
    given = [word for key, value in told.items() for word in ("--set", f"{key}={value}")]

    def run(*options: str) -> Result:
        return CliRunner().invoke(app, ["profile", str(bundle), *given, *options])

    return run


def test_a_profile_writes_the_table_where_edges_read_it_and_a_report_in_three_forms(
    call: Any, tmp_path: Path
) -> None:
    out = {name: tmp_path / "out" / f"report.{name}" for name in ("json", "md", "png")}
    done = call("--json", str(out["json"]), "--markdown", str(out["md"]), "--plot", str(out["png"]))
    assert done.exit_code == 0, done.output
    table = PlanTable.load(tmp_path / "bundle")
    report = json.loads(out["json"].read_text("utf-8"))
    assert report["complete"] and report["grid"] == 5 and report["data"]["source"] == "records:train"
    assert len(table.rows) == len(report["table"]) >= 1
    text = out["md"].read_text("utf-8")
    assert text in done.output and f"{report['table'][0]} *" in text
    assert out["png"].read_bytes().startswith(b"\x89PNG")
    again = call("--json", "-")
    assert json.loads(again.stdout)["plans"] == report["plans"]


def test_out_of_time_no_table_is_written_and_the_same_call_goes_on(call: Any, tmp_path: Path) -> None:
    stopped = call("--max-minutes", "0", "--plot", str(tmp_path / "none.png"))
    assert stopped.exit_code == 0 and "no table is written yet" in stopped.output
    assert not (tmp_path / "bundle" / "plans.json").exists()
    elsewhere = tmp_path / "elsewhere"
    assert call("--table", str(elsewhere)).exit_code == 0
    assert (elsewhere / "plans.json").exists() and not (tmp_path / "bundle" / "plans.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "data=records:heldout"), "marked 'heldout'"),
        (("--set", "dials.codecs=int9"), "unknown codec 'int9'"),
        (("--set", "dials.positions=12,x"), "dials.positions[1]: expected int"),
        (("--plot", "picture.txt"), "its ending must be"),
        (("--set", "data=nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_wrong_use_says_what_is_wrong(call: Any, options: tuple[str, ...], message: str) -> None:
    done = call(*options)
    assert done.exit_code != 0
    assert message in done.output + str(done.exception)
