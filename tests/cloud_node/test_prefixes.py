"""Documents are read before they are asked about, and what was read of them goes when they go."""

import asyncio
import dataclasses
import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from cloud_node.call import Ended
from cloud_node.config import CloudConfig
from cloud_node.documents import Documents
from cloud_node.prefixes import ReadOutcome
from cloud_node.replica import Replica
from fuser import StoredText
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from tests.cloud_fixture import DOCUMENTS
from tests.cloud_node.test_replica import call_for, share

QUESTION = Section(Role.QUESTION, Visibility.SHARED, text="Who keeps the spare key?")


@pytest.fixture
def documents(config: CloudConfig) -> Any:
    opened = Documents(config.documents, config.prefix_files)
    yield opened
    opened.close()


def files(config: CloudConfig) -> list[Path]:
    assert config.prefix_files is not None
    return sorted(config.prefix_files.root.rglob("*.safetensors"))


def small(documents: Documents) -> None:
    """Leaves the documents that are read in a moment."""
    for tenant, document_id in DOCUMENTS:
        if len(documents.get(tenant, document_id).text) > 2_000:
            documents.remove(tenant, document_id)


async def source(replica: Replica, document_id: str, **changes: Any) -> str:
    *_, end = await share(replica, call_for(replica, document_id, **changes))
    assert isinstance(end, Ended), end
    return end.prefix


async def test_a_document_is_read_before_its_first_question_and_by_the_next_replica_not_again(
    config: CloudConfig, documents: Documents
) -> None:
    small(documents)
    replica = Replica.load(config)
    replica.prefixes.read_new()
    count = len(files(config))
    assert count == len({(t, d) for t, d, _ in documents.newest()})
    assert await source(replica, "note-1", kind=SliceKind.EXCERPT) == "disk"
    assert await source(replica, "note-1", kind=SliceKind.DRAFT) == "memory"
    written = {path: path.stat().st_ino for path in files(config)}
    other = Replica.load(config)
    other.prefixes.read_new()
    assert {path: path.stat().st_ino for path in files(config)} == written
    assert await source(other, "note-2") == "disk"


async def test_a_document_that_was_not_read_is_read_by_its_question_for_all_replicas(
    config: CloudConfig, documents: Documents
) -> None:
    first, second = Replica.load(config), Replica.load(config)
    assert await source(first, "note-1", kind=SliceKind.EXCERPT) == "model"
    first._sharer(next(iter(first._sharers))).settle()
    assert await source(second, "note-1", kind=SliceKind.DRAFT) == "disk"


async def test_nothing_of_a_callers_own_words_is_kept_on_disk(config: CloudConfig) -> None:
    replica = Replica.load(config)
    document = Section(Role.DOCUMENT, Visibility.CLOUD, document_id="note-1")
    said = Section(Role.DOCUMENT, Visibility.SHARED, text="Ilse told me.")
    other = Section(Role.DOCUMENT, Visibility.CLOUD, document_id="note-2")
    for sections in ((said, document, QUESTION), (document, said, other, QUESTION)):
        await source(replica, "note-1", kind=SliceKind.EXCERPT, sections=sections)
        replica._sharer(next(iter(replica._sharers))).settle()
        assert files(config) == []
    sections = (document, said, QUESTION)
    assert await source(replica, "note-1", kind=SliceKind.EXCERPT, sections=sections) == "model"
    replica._sharer(next(iter(replica._sharers))).settle()
    assert len(files(config)) == 1


@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_a_document_that_goes_takes_what_was_read_of_it_with_it(
    config: CloudConfig, documents: Documents, how: str
) -> None:
    small(documents)
    replica = Replica.load(config)
    replica.prefixes.read_new()
    before = files(config)
    if how == "removed":
        documents.remove("acme", "note-1")
    else:
        documents.add("acme", "note-1", "Another text.", replace=True)
    assert len(files(config)) == len(before) - 1  # at once, whoever removed it
    replica.prefixes.read_new()
    assert len(set(files(config)) - set(before)) == (how == "replaced")


async def test_what_is_written_of_a_document_after_it_went_goes_too(
    config: CloudConfig, documents: Documents
) -> None:
    replica = Replica.load(config)
    reading = replica.share(call_for(replica, "note-1", kind=SliceKind.EXCERPT), 30.0)
    await anext(reading)
    documents.remove("acme", "note-1")
    async for _ in reading:
        pass
    for _ in range(2):
        replica.prefixes.forget_changed()
    assert files(config) == []


async def test_what_another_machine_removed_is_removed_here_at_the_next_look(
    config: CloudConfig, documents: Documents
) -> None:
    small(documents)
    replica = Replica.load(config)
    replica.prefixes.read_new()
    before = len(files(config))
    elsewhere = Documents(config.documents)
    elsewhere.remove("acme", "note-1")
    elsewhere.close()
    assert len(files(config)) == before
    Replica.load(config).prefixes.read_new()  # nor does it take the replica that read it
    assert len(files(config)) == before - 1


async def test_reading_ahead_lets_nothing_go_for_what_it_reads(
    config: CloudConfig, documents: Documents
) -> None:
    small(documents)
    replica = Replica.load(config)
    replica.prefixes.read_new()
    size = max(path.stat().st_size for path in files(config))
    for path in files(config):
        path.unlink()
    tight = dataclasses.replace(config.sharer, prefix_store_bytes=2 * size)
    config = dataclasses.replace(config, sharer=tight)
    Replica.load(config).prefixes.read_new()
    kept = {path: path.stat().st_ino for path in files(config)}
    assert kept and sum(path.stat().st_size for path in kept) <= 2 * size
    Replica.load(config).prefixes.read_new()
    assert {path: path.stat().st_ino for path in files(config)} == kept


async def test_a_question_overtakes_reading_ahead_at_the_next_layer(
    config: CloudConfig, documents: Documents
) -> None:
    for tenant, document_id in DOCUMENTS:
        if document_id != "note-1":
            documents.remove(tenant, document_id)
    documents.add("acme", "long", "The spare key is under the third stone. " * 100)
    replica = Replica.load(config)
    first, go = threading.Event(), threading.Event()
    model = next(iter(replica._sharers.values())).model
    ran: list[int] = []

    def layer_0(_: Any, inputs: Any, __: Any) -> None:
        ran.append(inputs[0].shape[1])
        if len(ran) == 1:
            first.set()
            assert go.wait(30)

    layers = model.get_decoder().layers
    hook = layers[0].register_forward_hook(layer_0)
    reading = threading.Thread(target=replica.prefixes.read_new)
    reading.start()
    assert await asyncio.to_thread(first.wait, 30)
    asking = asyncio.ensure_future(source(replica, "note-1", kind=SliceKind.EXCERPT))
    while not replica._schedule._waiting:  # until it is in the queue
        await asyncio.sleep(0.01)
    go.set()
    assert await asyncio.wait_for(asking, 30) == "model"
    await asyncio.to_thread(reading.join, 30)
    hook.remove()
    assert ran[0] > 400 and max(ran[1:3]) < 100  # the question came in the middle, with its document


def test_no_folder_no_files_and_nothing_is_read(config: CloudConfig, documents: Documents) -> None:
    off = dataclasses.replace(config, sharer=dataclasses.replace(config.sharer, prefix_store=""))
    replica = Replica.load(off)
    replica.look_soon()
    replica.prefixes.read_new()
    assert files(config) == []


async def test_a_document_that_is_removed_while_it_is_read_ahead_leaves_no_file(
    config: CloudConfig, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(documents)
    replica = Replica.load(config)
    prefixes = replica.prefixes
    (text,) = [StoredText(*one) for one in documents.newest() if one[:2] == ("acme", "note-1")]
    sharer = prefixes._sharers[0]
    settle = sharer.settle

    def removed() -> None:
        if ("acme", "note-1", text.version) in documents.newest():
            documents.remove("acme", "note-1")
        settle()

    monkeypatch.setattr(sharer, "settle", removed)
    assert prefixes.read(text) is ReadOutcome.GONE
    assert files(config) == []


async def test_a_document_that_could_not_be_stored_is_not_told_as_read(
    config: CloudConfig, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(documents)
    prefixes = Replica.load(config).prefixes
    monkeypatch.setattr("fuser.kv.prefix_store.save_file", full)
    text = StoredText(*documents.newest()[0])
    assert prefixes.read(text) is ReadOutcome.NO_ROOM


def full(*anything: object) -> None:
    raise OSError(errno.ENOSPC, "full")
