"""A cache of its own for every test, and no Hub."""

import os
from pathlib import Path

import pytest

GIVEN = os.environ.get("KVWIRE_CACHE")


@pytest.fixture
def real_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of this machine, where the real models are if they have been fetched."""
    if GIVEN is None:
        monkeypatch.delenv("KVWIRE_CACHE")
    else:
        monkeypatch.setenv("KVWIRE_CACHE", GIVEN)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory; the Hub is an address where nothing listens."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("KVWIRE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
