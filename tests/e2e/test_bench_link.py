"""`kvwire bench link` with the tiny pair: real processes on both ends of a slow link."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.bench.ways import ALONE, READ, RELAY

pytestmark = pytest.mark.slow


@pytest.mark.timeout(300)
def test_every_way_is_measured_over_the_link(
    tiny_sharer: Path, tiny_receiver: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    pair = ["--sharer", str(tiny_sharer), "--receiver", str(tiny_receiver), "--bundle", str(tiny_bundle)]
    how = ["--rates", "0.2", "--rtt", "60", "--limit", "1", "--max-new-tokens", "3", "--utilisation", ""]
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli", "bench", "link", *pair, *how, "--json", str(out)],
        env=os.environ | {"KVWIRE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    cells = {cell["way"]: cell for cell in report["results"]["cells"]}
    assert set(cells) == {ALONE, RELAY, READ, "raw", "lossless", "int8", "int4", "draft"}
    assert all(cell["as_wanted"] == 1 for cell in cells.values())
    assert cells["raw"]["bytes_down"] > cells["int8"]["bytes_down"] > cells["int8"]["payload_bytes"] > 0
    for way in set(cells) - {ALONE}:
        assert cells[way]["first_s"]["median"] > 0.06  # a round trip at least
        assert cells[way]["bytes_up"] > 0
    assert cells["raw"]["first_s"]["median"] > 0.06 + 8 * cells["raw"]["payload_bytes"] / 0.2e6
    assert list((tmp_path / "cache" / "bench").iterdir()) == []
