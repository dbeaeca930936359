"""A cloud whose documents lie in PostgreSQL: a real server, which stops, dies and comes back."""

import dataclasses
import logging
import signal
import time

import pytest

from cloud_node.config import CloudConfig, ExportPolicy
from cloud_node.documents import Documents
from kvwire.errors import DeadlineExceeded, DocumentsUnavailable, NotFound
from tests.cloud_fixture import CAPS, DOCUMENTS
from tests.cloud_node.conftest import Start
from tests.postgres_fixture import Postgres

QUESTION = "Who keeps the spare key?"


@pytest.fixture
def config(config: CloudConfig, postgres: Postgres) -> CloudConfig:
    """The tiny cloud's, with its documents in PostgreSQL."""
    url = postgres.new_store()
    documents = Documents(url)
    for (tenant, document_id), text in DOCUMENTS.items():
        documents.add(tenant, document_id, text, CAPS.get((tenant, document_id)))
    documents.close()
    return dataclasses.replace(config, documents=url)


async def test_a_database_that_stops_costs_a_call_its_deadline_and_nothing_else(
    start_local: Start, postgres: Postgres
) -> None:
    cloud = await start_local()
    assert len(await cloud.share(cloud.request("note-1", QUESTION))) > 2
    postgres.signal(signal.SIGSTOP)
    try:
        for _ in range(10):  # more than there are look-ups at once
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await cloud.share(cloud.request("note-1", QUESTION), timeout_s=0.5)
            assert time.monotonic() - began < 5
        assert len(await cloud.share(cloud.request(None, QUESTION))) > 2
    finally:
        postgres.signal(signal.SIGCONT)
    for _ in range(10):
        assert len(await cloud.share(cloud.request("note-1", QUESTION))) > 2


async def test_a_database_that_dies_is_told_of_at_once_and_one_that_is_back_is_used(
    start_local: Start, postgres: Postgres
) -> None:
    cloud = await start_local()
    assert len(await cloud.share(cloud.request("note-1", QUESTION))) > 2
    postgres.signal(signal.SIGKILL)
    try:
        began = time.monotonic()
        with pytest.raises(DocumentsUnavailable):
            await cloud.share(cloud.request("note-1", QUESTION), timeout_s=10)
        assert time.monotonic() - began < 5
    finally:
        postgres.start()
    assert len(await cloud.share(cloud.request("note-1", QUESTION))) > 2


async def test_an_id_that_no_document_has_is_not_found_and_no_fault_of_the_database(
    start_local: Start, caplog: pytest.LogCaptureFixture
) -> None:
    cloud = await start_local(export=ExportPolicy(allow_relay=True))
    for name in ("note-1\0", "\0"):
        with pytest.raises(NotFound):
            await cloud.share(cloud.request(name, QUESTION))
        with pytest.raises(NotFound):
            await cloud.relay(name, QUESTION, 4)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
