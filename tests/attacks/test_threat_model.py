"""docs/threat-model.md: a promise without a test is none."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_every_test_that_the_threat_model_names_exists_and_every_promise_names_one() -> None:
    text = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named and not named - there
    promises = re.split(
        r"^- ", text.partition("## What is promised")[2].partition("## What is not")[0], flags=re.M
    )
    assert all("`test_" in promise for promise in promises[1:])
