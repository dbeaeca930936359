"""`kvwire bench local` with the tiny pair: both nodes, twice, and one process beside them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.bench import local

pytestmark = pytest.mark.slow


@pytest.mark.timeout(400)
def test_three_rounds_over_filled_documents_stand_beside_one_process(
    tiny_sharer: Path, tiny_receiver: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    pair = ["--sharer", str(tiny_sharer), "--receiver", str(tiny_receiver), "--bundle", str(tiny_bundle)]
    how = ["--limit", "1", "--tokens", "400", "--max-new-tokens", "3"]
    pin = hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ops.cli",
            "bench",
            "local",
            *pair,
            *how,
            *["--pin"] * pin,
            "--json",
            str(out),
        ],
        env=os.environ | {"KVWIRE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=380,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert (report["settings"]["tokens"], report["settings"]["pin"]) == (400, pin)
    rounds = report["results"]["rounds"]
    assert list(rounds) == [local.NOT_READ, local.READ, local.NEXT]
    for found in rounds.values():
        assert 300 < found["tokens"] < 500 and found["questions"] == 1
        assert 0 < found["first_token"]["ours_s"] <= found["answer"]["ours_s"]
    assert list((tmp_path / "cache" / "bench").iterdir()) == []
