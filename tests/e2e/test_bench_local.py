"""`kvwire bench local` with the tiny pair: both nodes, twice, and one process beside them."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from ops.bench import local

pytestmark = pytest.mark.slow


@pytest.mark.timeout(400)
def test_three_rounds_over_filled_documents_stand_beside_one_process(
    bench: Callable[..., dict[str, Any]],
) -> None:
    pin = hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1
    how = ["--limit", "1", "--tokens", "400", "--max-new-tokens", "3", *["--pin"] * pin]
    report = bench("local", *how, timeout_s=380)
    assert (report["settings"]["tokens"], report["settings"]["pin"]) == (400, pin)
    rounds = report["results"]["rounds"]
    assert list(rounds) == [local.NOT_READ, local.READ, local.NEXT]
    for found in rounds.values():
        assert 300 < found["tokens"] < 500 and found["questions"] == 1
        assert 0 < found["first_token"]["ours_s"] <= found["answer"]["ours_s"]
