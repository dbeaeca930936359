"""`kvwire models` lists, fetches and finds."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fuser.models.directory import NotFetched, UnknownModel
from ops.commands.models import app
from ops.models.registry import KNOWN_MODELS
from tests.process import python


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KVWIRE_CACHE", str(tmp_path))
    return tmp_path


def test_the_list_has_every_known_model() -> None:
    listed = CliRunner().invoke(app, ["list"])
    assert listed.exit_code == 0
    assert all(name in listed.stdout for name in KNOWN_MODELS)


def test_the_list_as_json_says_what_is_here() -> None:
    rows = json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout)
    assert [row["name"] for row in rows] == list(KNOWN_MODELS)
    assert all(row["path"] is None and row["sha256"] for row in rows)


def test_fetching_a_directory_prints_its_reference(tiny_receiver: Path) -> None:
    done = CliRunner().invoke(app, ["fetch", str(tiny_receiver), "--json"])
    (entry,) = json.loads(done.stdout)
    assert entry["path"] == str(tiny_receiver)
    assert len(entry["revision"]) == 64


def test_the_path_of_a_directory_is_printed_bare(tiny_receiver: Path) -> None:
    assert CliRunner().invoke(app, ["path", str(tiny_receiver)]).stdout == f"{tiny_receiver}\n"


def test_the_path_of_a_model_that_is_not_here_is_an_error() -> None:
    result = CliRunner().invoke(app, ["path", "smollm2-135m-instruct"])
    assert result.exit_code != 0
    assert isinstance(result.exception, NotFetched)
    assert "kvwire models fetch" in str(result.exception)


def test_an_unknown_name_is_an_error() -> None:
    result = CliRunner().invoke(app, ["fetch", "no-such-model"])
    assert isinstance(result.exception, UnknownModel)


def test_listing_does_not_import_torch() -> None:
    code = "import sys, ops.commands.models as m; m.list_models(json=True); sys.exit('torch' in sys.modules)"
    assert python("-c", code).returncode == 0
