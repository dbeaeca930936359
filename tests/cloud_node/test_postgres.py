"""A cloud whose documents lie in PostgreSQL: a real server, which stops, dies and comes back."""

import logging
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import create_engine

from cloud_node.config import ExportPolicy
from cloud_node.documents import Documents
from cloud_node.exposure import Budget, Leaving
from cloud_node.users import Principal
from kvwire.errors import DeadlineExceeded, DocumentsUnavailable, NotFound
from kvwire.identity import Identity, PeerRole
from ops.chaos.postgres import Postgres
from tests.cloud_node.conftest import Start

QUESTION = "Who keeps the spare key?"


@pytest.fixture
def documents_url(postgres: Postgres) -> str:
    return postgres.new_store()


async def test_a_database_that_stops_costs_a_call_its_deadline_or_two_seconds_and_nothing_else(
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
        began = time.monotonic()
        with pytest.raises(DocumentsUnavailable):  # whoever has longer is told why, and soon
            await cloud.share(cloud.request("note-1", QUESTION), timeout_s=30)
        assert time.monotonic() - began < 4
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


@pytest.mark.parametrize("work", ["remove documents", "remove quotes", "count quotes"])
def test_who_counts_and_who_forgets_lock_rows_in_one_order(postgres: Postgres, work: str) -> None:
    url = postgres.new_store()
    documents = Documents(url)
    caller = Principal(Identity(PeerRole.EDGE, "acme"))
    late, early = (20, 29), (10, 19)
    for document_id in ("a", "b"):
        documents.add("acme", document_id, "The spare key lies under the flowerpot.")
    for quoted in (late, early):
        documents.count(caller, [Leaving("a", Budget(), 1, (quoted,))])
    first, second = "exposed_characters WHERE begins = 10", "exposed_characters WHERE begins = 20"
    if work == "remove documents":
        first, second = "documents WHERE id = 'a'", "documents WHERE id = 'b'"
    run: Callable[[], object] = partial(documents.remove, "acme", "b", "a")
    if work == "count quotes":
        run = partial(documents.count, caller, [Leaving("a", Budget(), 1, (late, early))])
    engine = create_engine(url)
    watched = engine.execution_options(isolation_level="AUTOCOMMIT")  # sees each time what is so now
    with ThreadPoolExecutor() as threads:
        with engine.begin() as other, watched.connect() as watching:
            watching.exec_driver_sql("ANALYZE exposed_characters")  # else an index may give them in order
            other.exec_driver_sql(f"SELECT 1 FROM {first} FOR UPDATE")
            done = threads.submit(run)
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while not watching.exec_driver_sql(waits).scalar_one():
                assert not done.done()
            other.exec_driver_sql(f"SELECT 1 FROM {second} FOR UPDATE NOWAIT")  # it has not taken this one
        done.result()
    engine.dispose()
    documents.close()


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
