"""`kvwire bench`: what every benchmark has in common."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from ops.bench.benchmark import Bench
from ops.bench.envelope import measured


def bench(calls: list[str]) -> Bench:
    def measure(progress: Progress) -> Mapping[str, Any]:
        calls.append("measured")
        for _ in progress.track(range(3), description="counting"):
            pass
        return {"ratio": 0.5}

    def plot(report: Mapping[str, Any], path: Path) -> None:
        calls.append("drawn")
        path.write_text(str(report["results"]["ratio"]))

    return Bench(
        "counting", {"limit": 3}, measure, lambda report: f"ratio {report['results']['ratio']}", plot, 7
    )


def test_a_report_says_what_where_and_when() -> None:
    report = measured("counting", {"limit": 3}, 7, lambda: {"ratio": 0.5})
    assert report["bench"] == "counting" and report["settings"] == {"limit": 3} and report["seed"] == 7
    assert report["results"] == {"ratio": 0.5}
    assert report["seconds"] >= 0 and report["date"].endswith("+00:00")
    assert report["machine"]["cores"] >= 1 and "load_before" in report["machine"]
    assert {"python", "torch", "grpcio", "ray"} <= set(report["versions"])
    assert json.loads(json.dumps(report)) == report


def test_a_run_writes_report_table_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    calls: list[str] = []
    out, table, picture = tmp_path / "new" / "out.json", tmp_path / "table.md", tmp_path / "out.svg"
    bench(calls).run(str(out), table, picture)
    assert calls == ["measured", "drawn"]
    assert json.loads(out.read_text())["results"] == {"ratio": 0.5}
    assert table.read_text() == "ratio 0.5\n"
    assert picture.read_text() == "0.5"
    assert "ratio 0.5" in capsys.readouterr().out


def test_a_dash_prints_the_report_alone(capsys: pytest.CaptureFixture[str]) -> None:
    bench([]).run("-")
    assert json.loads(capsys.readouterr().out)["results"] == {"ratio": 0.5}


def test_a_picture_that_cannot_be_drawn_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    calls: list[str] = []
    with pytest.raises(ValueError, match="ending"):
        bench(calls).run(plot_out=tmp_path / "out.txt")
    assert calls == []
