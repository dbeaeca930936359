"""RayFolder: private, and gone with its owner, whichever way he went."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_node.ray_folder import RayFolder

OWNER = """
import subprocess, sys
from cloud_node.ray_folder import RayFolder
folder = RayFolder.make()
with (folder.path / "log").open("w") as log:
    print(".", file=log, flush=True)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=log)
print(folder.path, child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short TMPDIR of the test's own."""
    with tempfile.TemporaryDirectory(prefix="kt-", dir="/tmp") as name:
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


def owner() -> "tuple[subprocess.Popen[str], Path, int]":
    """Another process with a folder, and a child of it that writes there."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    path, pid = process.stdout.readline().split()
    return process, Path(path), int(pid)


def test_a_folder_is_its_owners_alone_and_removed_with_whoever_writes_there(parent: Path) -> None:
    folder = RayFolder.make()
    assert folder.path.parent == parent
    assert folder.path.stat().st_mode & 0o777 == 0o700
    with (folder.path / "log").open("w") as log:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=log)
    folder.remove()
    assert child.wait(5) == -signal.SIGKILL
    assert not list(parent.iterdir())


def test_what_a_killed_owner_left_ends_with_the_next_start(parent: Path) -> None:
    process, path, orphan = owner()
    with process:
        process.kill()
    assert path.exists() and Path(f"/proc/{orphan}").exists()
    RayFolder.make().remove()
    assert not list(parent.iterdir())
    assert not running(orphan)


def test_who_only_reads_what_a_killed_owner_left_lives_on(parent: Path) -> None:
    process, path, orphan = owner()
    with process:
        process.kill()
    with subprocess.Popen(["tail", "-f", str(path / "log")], stdout=subprocess.PIPE, bufsize=0) as reader:
        assert reader.stdout is not None
        assert reader.stdout.read(1) == b"."  # it has the file open
        try:
            RayFolder.make().remove()
            assert not path.exists() and not running(orphan)
            assert reader.poll() is None and state(reader.pid) != "T"
        finally:
            reader.kill()


def test_a_living_owners_folder_stays(parent: Path) -> None:
    process, path, child = owner()
    try:
        RayFolder.make().remove()
        assert path.exists() and running(child)
    finally:
        with process:
            process.kill()
        RayFolder.make().remove()


def test_a_long_tmpdir_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with caplog.at_level("INFO"):
        folder = RayFolder.make()
    folder.remove()
    assert folder.path.parent == Path("/tmp")
    assert str(long) in caplog.text


def running(pid: int) -> bool:
    return state(pid) not in ("Z", "")


def state(pid: int) -> str:
    """The letter that Linux has for it; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
