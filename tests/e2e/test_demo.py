"""The demo with the tiny pair: real processes, real Ray Serve, real mutual TLS, no real understanding."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.chaos.stage import family_of
from tests.edge_node.sharer_server import wait_until

pytestmark = pytest.mark.slow


Start = Callable[[list[str]], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts demos whose cache is the test's folder, and ends what is left of them."""
    started: list[subprocess.Popen[str]] = []

    def start(arguments: list[str]) -> "subprocess.Popen[str]":
        demo = subprocess.Popen(
            [sys.executable, "-m", "ops.cli", "demo", *arguments],
            env=os.environ | {"KVWIRE_CACHE": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(demo)
        return demo

    yield start
    for demo in started:
        demo.kill()
        demo.communicate()


@pytest.fixture
def arguments(tiny_sharer: Path, tiny_receiver: Path, tiny_bundle: Path) -> list[str]:
    pair = ["--sharer", str(tiny_sharer), "--receiver", str(tiny_receiver), "--bundle", str(tiny_bundle)]
    return [*pair, "--documents", "3", "--max-new-tokens", "4"]


@pytest.mark.timeout(300)
def test_every_question_is_answered_with_a_slice_and_no_document_crosses(
    start: Start, arguments: list[str], tmp_path: Path
) -> None:
    demo = start([*arguments, "--all", "--json"])
    out, err = demo.communicate(timeout=280)
    assert demo.returncode == 0, err
    assert {"starting the cloud node (Ray Serve, Sharer)", "asking with slices from the cloud"} <= set(
        err.splitlines()
    )
    report: dict[str, Any] = json.loads(out)
    assert len(report["rows"]) == 6
    for row in report["rows"]:
        assert row["fused_source"] == "fused"
        assert row["positions"] == 8
        assert row["document_positions"] > row["positions"]
        assert row["bytes_on_wire"] > row["payload_bytes"] > 0
        assert row["time_to_first_token_s"] > 0
    wire = report["wire"]
    assert wire["passed"]
    assert wire["found"] == []
    assert wire["questions_seen"] == wire["questions"] == 6
    assert wire["segments"] >= 6
    totals = report["totals"]
    assert totals["positions"] == 48
    assert 0 < totals["bytes_per_position"] < report["bf16_bytes"]
    assert list((tmp_path / "demo").iterdir()) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("signals", [[signal.SIGTERM, signal.SIGINT], [signal.SIGKILL]])
def test_however_the_demo_is_stopped_every_process_ends(
    start: Start, arguments: list[str], tmp_path: Path, signals: list[signal.Signals]
) -> None:
    demo = start(arguments)
    end = time.monotonic() + 60
    while len(Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()) < 2:
        assert demo.poll() is None and time.monotonic() < end, "no two nodes within a minute"
        time.sleep(0.1)
    time.sleep(0.5)  # both are starting
    children = family_of(demo.pid)
    for number in signals:
        demo.send_signal(number)
        time.sleep(0.3)
    status = demo.wait(90)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), within_s=60)
    if signals != [signal.SIGKILL]:
        # CPython ends by the signal itself, and not by our 130, if it came while a string was executed
        # (dataclasses, on import): a shell shows 130 for both.
        assert status in (130, -signal.SIGINT)
        assert list((tmp_path / "demo").iterdir()) == []


@pytest.mark.timeout(300)
def test_with_page_both_nodes_stay_until_the_interrupt_and_end_then(
    start: Start, arguments: list[str], tmp_path: Path
) -> None:
    demo = start([*arguments, "--page", "--json"])
    assert demo.stderr is not None and demo.stdout is not None
    said = next(line for line in demo.stderr if "the edge's page: " in line)
    url = said.split()[-1]
    with urllib.request.urlopen(url, timeout=30) as page:
        assert b"/page/main.js" in page.read()
    body = {"question": "Who?", "document": "record-brandvik"}
    asked = urllib.request.Request(
        f"{url}v1/ask", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=60) as reply:
        assert json.load(reply)["source"] == "fused"
    children = family_of(demo.pid)
    demo.send_signal(signal.SIGINT)
    out, _ = demo.communicate(timeout=90)
    assert demo.returncode == 0 and json.loads(out)["wire"]["passed"]
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    assert list((tmp_path / "demo").iterdir()) == []


@pytest.mark.timeout(200)
def test_a_node_that_cannot_start_ends_the_demo_with_its_reason(
    start: Start, arguments: list[str], tiny_sharer: Path, tmp_path: Path
) -> None:
    wrong = [str(tiny_sharer) if argument.endswith("tiny-receiver") else argument for argument in arguments]
    demo = start(wrong)  # the bundle is for another Receiver
    _, err = demo.communicate(timeout=180)
    assert demo.returncode == 1
    assert "the edge node ended with status 1" in err
    assert "not for tiny-sharer" in err
    assert "logs and configurations of this run" in err
    (left,) = (tmp_path / "demo").iterdir()
    assert (left / "edge.log").is_file()
