"""`kvwire bench`: what every benchmark has in common."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress
from typer.testing import CliRunner

from ops.bench.benchmark import Bench
from ops.bench.envelope import measured
from ops.bench.prefixes import WAYS
from ops.cli import app
from ops.tables import check_marks


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


def test_a_report_is_put_into_its_place_of_a_page_again_with_its_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ratio = {"ratio": 7.5, "low": 7.0, "high": 8.0}
    row = {
        "tokens": 97,
        "rounds": 3,
        "to_next": dict.fromkeys(WAYS, ratio),
        "to_shortest": dict.fromkeys(WAYS, 1.0),
        "median_s": dict.fromkeys(WAYS, 0.1),
    }
    report = measured("prefixes", {"tokens": [97]}, 1, lambda: {"token_bytes": 12_288, "rows": [row]})
    (tmp_path / "prefixes.json").write_text(json.dumps(report))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- kvwire bench prefixes -->\nold\n<!-- end of kvwire bench -->\nafter\n")
    command = ["bench", "put", str(tmp_path / "prefixes.json"), "--into", str(page), "--pictures"]
    for _ in range(2):
        done = CliRunner().invoke(app, [*command, str(tmp_path / "pictures")])
        assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "7.50 (7.00-8.00)" in text and report["date"][:10] in text and "old" not in text
    assert "(pictures/prefixes.png)" in text
    assert text.startswith("before\n<!--") and text.endswith("-->\nafter\n")
    assert (tmp_path / "pictures" / "prefixes.png").stat().st_size > 1_000
    page.write_text("no place\n")
    assert CliRunner().invoke(app, [*command, str(tmp_path)]).exit_code == 1


def test_every_report_that_make_bench_makes_has_its_place_in_a_page() -> None:
    root = Path(__file__).parents[2]
    (line,) = [li for li in (root / "Makefile").read_text().splitlines() if li.startswith("BENCHES ?=")]
    for name in line.split("=")[1].split():
        page = "scale.md" if name == "scale" else "benchmarks.md"
        check_marks(root / "docs" / page, name, "bench")
