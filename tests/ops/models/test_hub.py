"""The Hub as a source, against a server on loopback that speaks what a download needs of its protocol."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import pytest
from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache

import ops.models.hub as hub_module
from fuser.models.directory import NotFetched, local_snapshot
from ops.models.errors import FetchFailed
from ops.models.fetch import find, resolve
from ops.models.hub import fetch_from_hub, snapshot
from ops.models.progress import Progress
from ops.models.registry import SMOLLM2_135M, HubFile, KnownModel

QUIET = Progress(False)
CONTENT = b"the bytes of a model" * 1000
COMMIT = "c" * 40
MODEL = dataclasses.replace(SMOLLM2_135M, hub=HubFile("owner/model", COMMIT, "model.gguf"))


class Hub(BaseHTTPRequestHandler):
    """Serves one file of one repository."""

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(CONTENT)

    def _answer(self, body: bytes) -> None:
        if self.path != f"/owner/model/resolve/{COMMIT}/model.gguf":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(CONTENT).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client talks to `Hub`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def fetched(model: KnownModel, tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    fetch_from_hub(model, path, QUIET)
    return path


@pytest.mark.usefixtures("hub")
def test_a_file_comes_from_the_hub(tmp_path: Path) -> None:
    path = fetched(MODEL, tmp_path)
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]  # what the client keeps beside it is gone


@pytest.mark.usefixtures("hub")
def test_a_file_that_the_hub_does_not_have_is_said_so(tmp_path: Path) -> None:
    other = dataclasses.replace(MODEL, hub=HubFile("owner/model", COMMIT, "other.gguf"))
    with pytest.raises(FetchFailed, match="owner/model is not reachable there"):
        fetched(other, tmp_path)


def test_a_hub_that_does_not_answer_costs_seconds_not_minutes(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(FetchFailed, match="owner/model is not reachable there"):
        fetched(MODEL, tmp_path)
    assert time.monotonic() - start < 5


def test_a_model_without_a_hub_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="no file with the pinned bytes is known there"):
        fetched(dataclasses.replace(MODEL, hub=None), tmp_path)


def test_an_id_that_is_neither_cached_nor_reachable_is_said_so() -> None:
    with pytest.raises(
        FetchFailed, match="nobody/nothing is not in the local Hugging Face cache, and on the Hub"
    ):
        snapshot("nobody/nothing", QUIET)


def fetched_before(cache: Path, *lacking: str, listed: bool = True) -> Path:
    """A model of two parts as the Hub client leaves it, that fetched only what is wanted; and without some files.

    listed: the client kept the list of what the repository has; some do not.
    """
    folder = cache / "models--owner--model"
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.dumps({"weight_map": {"a": parts[0], "b": parts[1]}})
    here = {"config.json": "{}", "model.safetensors.index.json": index, parts[0]: "1", parts[1]: "2"}
    there = [*here, "README.md", "pytorch_model.bin", "modeling_mine.py"]
    entries = {name: TreeCacheEntry(1, "b" * 40, None, None, None) for name in there}
    if listed:
        write_tree_cache(str(folder), COMMIT, entries)
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    snapshots = folder / "snapshots" / COMMIT
    snapshots.mkdir(parents=True)
    for name in here.keys() - set(lacking):
        (snapshots / name).write_text(here[name])
    return snapshots


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize(("offline", "listed"), [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("name", ["owner/model", f"owner/model@{COMMIT}"])
def test_a_model_that_was_fetched_once_is_found_without_the_hub(
    hub_cache: Path, name: str, offline: bool, listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(hub_module, "_probe", lambda _: pytest.fail("the Hub was asked"))
    path = fetched_before(hub_cache, listed=listed)
    assert snapshot(name, QUIET) == path
    assert find(name) == path
    assert resolve(name, progress=False) == path


@pytest.mark.parametrize("lacking", ["model-00002-of-00002.safetensors", "config.json"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_model_that_was_fetched_in_part_is_not_taken_for_whole(
    hub_cache: Path, lacking: str, listed: bool
) -> None:
    fetched_before(hub_cache, lacking, listed=listed)
    assert local_snapshot("owner/model") is None
    with pytest.raises(NotFetched, match="run `kvwire models fetch owner/model`"):
        find("owner/model")
