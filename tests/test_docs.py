"""The pages: they build without a warning, and what they list is what the packages have."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edge_node
from edge_node.refusals import _UNANSWERED, status_of
from kvwire.errors import CATALOGUE, KvwireError

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("mkdocs is not installed: pip install -e '.[docs]'")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=DOCS.parent,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "site" / "reference" / "edge_node.html").read_text(encoding="utf-8")
    assert 'id="edge_node.ask.Ask"' in page and "require_fused" in page


def test_the_reference_has_every_name_of_the_sdk() -> None:
    listed = {
        path
        for page in ("edge_node", "kvwire")
        for path in re.findall(
            r"^::: ([\w.]+)$", (DOCS / "reference" / f"{page}.md").read_text(), re.MULTILINE
        )
    }
    for name in edge_node.__all__:
        door = getattr(edge_node, name)
        home = f"{door.__module__}.{door.__qualname__}"
        assert home in listed or door.__module__ in listed, f"{name} ({home})"


def http_status(error: type[KvwireError]) -> int:
    """Of the local API: as a refusal where the caller can mend it, else of a question that got no answer."""
    status = status_of(error.__new__(error))
    return status if status != 500 else _UNANSWERED.get(CATALOGUE[error].reason, 503)


def test_the_page_of_errors_has_the_catalogue_and_every_error_can_be_imported_with_the_sdk() -> None:
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(\w+)` \| ([A-Z_]+) \| ([A-Z_]+) \| (\d+) \| (yes|) ?\| .+ \|$", text, re.MULTILINE
    )
    assert rows == [
        (
            error.__name__,
            entry.status,
            entry.reason,
            str(http_status(error)),
            "yes" if entry.retryable else "",
        )
        for error, entry in CATALOGUE.items()
    ]
    assert {error.__name__ for error in CATALOGUE} <= set(edge_node.__all__)
    answer = importlib.import_module("edge_node.answer")
    for reason in ("REQUESTED", "NOTES", "EMPTY", "NO_PLAN", "NOTHING_TO_SHARE"):
        assert f"| {getattr(answer, reason)} | {_UNANSWERED.get(reason, '')}" in text


def test_what_a_profile_was_measured_to_give_away_is_what_privacy_says() -> None:
    from cloud_node.config import PROFILES

    page = (DOCS / "privacy.md").read_text(encoding="utf-8")
    for name, profile in PROFILES.items():
        (row,) = re.findall(rf"^\| `{name}`.*$", page, re.MULTILINE)
        cells = [re.findall(r"^[0-9.]+", cell.strip()) for cell in row.split("|")[3:5]]
        assert cells == [[str(n)] if n is not None else [] for n in (profile.beyond, profile.together)]
