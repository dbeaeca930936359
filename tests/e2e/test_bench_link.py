"""`kvwire bench link` with the tiny pair: real processes on both ends of a slow link."""

from collections.abc import Callable
from typing import Any

import pytest

from ops.bench.ways import ALONE, READ, RELAY

pytestmark = pytest.mark.slow


@pytest.mark.timeout(300)
def test_every_way_is_measured_over_the_link(bench: Callable[..., dict[str, Any]]) -> None:
    how = ["--rates", "0.2", "--rtt", "60", "--limit", "1", "--max-new-tokens", "3", "--utilisation", ""]
    report = bench("link", *how, timeout_s=280)
    cells = {cell["way"]: cell for cell in report["results"]["cells"]}
    assert set(cells) == {ALONE, RELAY, READ, "raw", "lossless", "int8", "int4", "draft"}
    assert all(cell["as_wanted"] == 1 for cell in cells.values())
    assert cells["raw"]["bytes_down"] > cells["int8"]["bytes_down"] > cells["int8"]["payload_bytes"] > 0
    for way in set(cells) - {ALONE}:
        assert cells[way]["first_s"]["median"] > 0.06  # a round trip at least
        assert cells[way]["bytes_up"] > 0
    assert cells["raw"]["first_s"]["median"] > 0.06 + 8 * cells["raw"]["payload_bytes"] / 0.2e6
