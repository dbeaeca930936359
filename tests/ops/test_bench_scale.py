"""`kvwire bench scale`: the formula agrees with textbooks and with the simulation, and the tables tell both."""

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.bench import scale
from ops.bench.prefixes import COLD, NEXT, STORED, summary
from ops.bench.queues import ANY, OWN, SPILL, Scale, simulate, waiting
from ops.bench.scale_serve import _SERVICE_S, _ask
from ops.cli import app

SMALL = Scale(questions_s=50.0, documents=1_000, events=20_000)


def test_the_formula_gives_what_is_known_of_queues() -> None:
    assert waiting(1, 0.5, 1.0, 1.0) == pytest.approx(1.0)  # M/M/1: load / (1 - load)
    assert waiting(1, 0.5, 1.0, 0.0) == pytest.approx(0.5)  # M/D/1: half of it
    assert waiting(2, 1.5, 1.0, 1.0) == pytest.approx(9 / 7)  # M/M/2 at 0.75
    assert waiting(2, 2.0, 1.0, 1.0) == math.inf


def test_the_simulation_waits_as_long_as_the_formula_says() -> None:
    found = simulate(SMALL, 10, ANY, (0.14, 0.14), 0.5, room=0)
    assert found["load"] == pytest.approx(0.7, rel=0.05)
    assert found["wait_s"] == pytest.approx(waiting(10, 50.0, 0.14, 0.5), rel=0.25)


def test_a_documents_own_replica_finds_it_in_memory_and_a_busy_one_is_passed_by() -> None:
    even = replace(SMALL, zipf=0.0)
    own, spill, anywhere = (simulate(even, 10, way, (0.1, 0.15), 0.5, room=100) for way in (OWN, SPILL, ANY))
    assert own["memory"] > 0.9 > spill["memory"] > anywhere["memory"]
    popular = replace(SMALL, zipf=1.2)  # one document is asked about more often than a replica can answer
    own, spill = (simulate(popular, 10, way, (0.14, 0.14), 0.5, room=100) for way in (OWN, SPILL))
    assert own["wait_s"] > 20 * spill["wait_s"]


def test_questions_that_all_take_as_long_are_asked_too() -> None:
    took: list[float] = []

    class Handle:
        ask: "Handle"

        async def remote(self, seconds: float) -> None:
            took.append(seconds)

    handle = Handle()
    handle.ask = handle
    asyncio.run(_ask(handle, 8, 0.0, questions=2))
    assert took[-2:] == [_SERVICE_S] * 2


def test_waits_and_carriers_are_told_of_service_times_that_were_measured(tmp_path: Path) -> None:
    cells = [
        {"tokens": tokens, "seconds": {COLD: tokens / 200 * jitter, STORED: 0.11, NEXT: 0.1}, "disk_bytes": 1}
        for tokens in (100, 400)
        for jitter in (0.9, 1.0, 1.1)
    ]
    report = tmp_path / "prefixes.json"
    report.write_text(
        json.dumps({"bench": "prefixes", "date": "2026-11-30", "results": summary(cells, 12_288)})
    )
    command = [
        "bench",
        "scale",
        "--service",
        str(report),
        "--questions-s",
        "100",
        "--documents",
        "1000",
        "--json",
        "-",
    ]
    done = CliRunner().invoke(app, [*command, "--events", "3000"])
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)["results"]
    assert results["seconds"] == pytest.approx({COLD: 2.5, STORED: 0.11, NEXT: 0.1})
    read, each_time, text, whole = results["carriers"]
    assert read["replicas"] == pytest.approx([22, 16, 13], abs=1)
    assert each_time["seconds"] == pytest.approx(2.5) and text["seconds"] > read["seconds"]
    assert whole["bytes"] == 500 * 12_288
    assert {row["way"] for row in results["rows"]} == {ANY, OWN, SPILL}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--questions-s", "inf"), "--questions-s"),
        (("--serve", "1,2.5"), "whole numbers from 1"),
        (("--serve", "0"), "whole numbers from 1"),
        (("--serve", "inf"), "whole numbers from 1"),
        ((), "no times over 500 tokens"),
    ],
)
def test_settings_that_give_no_numbers_are_refused_before_anything_is_simulated(
    options: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "measure", None)
    lengths = (100, 400) if options else (100,)
    cells = [
        {"tokens": tokens, "seconds": {COLD: 0.3, STORED: 0.2, NEXT: 0.1}, "disk_bytes": 1}
        for tokens in lengths
    ]
    report = {"bench": "prefixes", "date": "2026-11-30", "results": summary(cells, 12_288)}
    (tmp_path / "prefixes.json").write_text(json.dumps(report))
    asked = ["bench", "scale", "--service", str(tmp_path / "prefixes.json"), *options]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code and said in done.output + str(done.exception)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"bench": "cloud", "date": "x", "results": {}}', "\0"])
def test_a_file_that_is_no_report_of_prefixes_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ValueError, match=r"other\.json is no report of `kvwire bench prefixes`"):
        scale.read_report(tmp_path / "other.json", 500)
