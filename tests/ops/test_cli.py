"""The command line without any node."""

import json
import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from ops.cli import app


def kvwire(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "ops.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=os.environ)


def test_certs_prints_where_they_are(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["certs", str(tmp_path), "--tenant", "acme", "--json"])
    paths = json.loads(done.stdout)
    assert set(paths) == {"authority", "cloud", "edge acme"}
    assert all(Path(path).is_file() for path in paths.values())


def test_an_error_is_one_line_and_status_1(tmp_path: Path) -> None:
    assert kvwire("certs", str(tmp_path), "--tenant", "acme").returncode == 0
    again = kvwire("certs", str(tmp_path), "--tenant", "acme")
    assert again.returncode == 1
    assert again.stderr.startswith("kvwire: ")
    assert again.stderr.count("\n") == 1
    assert "--force" in again.stderr


def test_verbose_shows_where_an_error_came_from(tmp_path: Path) -> None:
    kvwire("certs", str(tmp_path), "--tenant", "acme")
    assert "Traceback" in kvwire("--verbose", "certs", str(tmp_path), "--tenant", "acme").stderr


def test_wrong_use_is_status_2() -> None:
    assert kvwire("documents", "add").returncode == 2
    assert kvwire("nonsense").returncode == 2


def test_an_unknown_key_of_a_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "cloud.toml").write_text("lissten = 'x'\n", encoding="utf-8")
    done = kvwire("cloud", "--config", str(tmp_path / "cloud.toml"))
    assert done.returncode == 1
    assert "lissten" in done.stderr


def test_bundle_info_says_what_a_bundle_is_for(tiny_bundle: Path) -> None:
    done = CliRunner().invoke(app, ["bundle", "info", str(tiny_bundle), "--json"])
    info = json.loads(done.stdout)
    assert info["slices"] == "excerpt, shared"
    assert info["sharer"].startswith("tiny-sharer@")
    assert len(info["hash"]) == 64


def test_the_demo_without_a_bundle_says_what_to_do(tmp_path: Path) -> None:
    done = kvwire("demo", "--bundle", str(tmp_path))
    assert done.returncode == 1
    assert "kvwire train" in done.stderr
