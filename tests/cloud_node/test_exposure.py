import asyncio
import contextlib
import dataclasses
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from cloud_node.audit import AuditLog, AuditRecord
from cloud_node.audit_chain import lines
from cloud_node.audit_exposure import exposure_in
from cloud_node.config import CloudConfig, ExportPolicy
from cloud_node.document_reader import DocumentReader
from cloud_node.documents import Documents, hash_of
from cloud_node.export import leaving_nothing
from cloud_node.exposure import Budget, Leaving, key_of, seconds_left
from cloud_node.users import Principal
from fuser.sharer import Sharer
from kvwire.errors import AuditUnavailable, Busy, ExposureSpent, InternalError, NotFound
from kvwire.identity import Identity, PeerRole
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from tests.cloud_fixture import DOCUMENTS
from tests.cloud_node.conftest import LocalCloud, Start

QUESTION = "Who keeps the spare key?"
ACME = Identity(PeerRole.EDGE, "acme").uri
KIOSK = Identity(PeerRole.EDGE, "acme", "kiosk-3").uri
EDGE = Principal(Identity.parse(ACME))


@pytest.fixture
def documents(store_url: str) -> Iterator[Documents]:
    store = Documents(store_url)
    store.add("acme", "a", "The key is under the stone.")
    yield store
    store.close()


def of(config: CloudConfig, document_id: str = "note-1", tenant: str = "acme") -> list[tuple[str, int, int]]:
    """Identity, questions and positions of today."""
    store = Documents(config.documents)
    days, _ = store.exposure(tenant, document_id)
    store.close()
    assert all(day.day == datetime.now(UTC).date().isoformat() for day in days)
    return [(day.identity, day.questions, day.positions) for day in days]


def test_what_leaves_is_counted_by_identity_and_survives_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'd.db'}"
    for identity, positions in ((ACME, 3), (KIOSK, 4), (ACME, 5)):
        store = Documents(url)
        store.count(Principal(Identity.parse(identity)), [Leaving("a", Budget(), positions)])
        store.close()
    store = Documents(url)
    days, quotes = store.exposure("acme", "a")
    assert [(d.identity, d.questions, d.positions) for d in days] == [(ACME, 2, 8), (KIOSK, 1, 4)]
    assert quotes == [] and store.exposure("other", "a") == ([], [])
    store.close()


def test_as_many_statements_count_a_long_quote_as_a_short_one(documents: Documents) -> None:
    run: list[str] = []
    event.listen(documents._engine, "before_cursor_execute", lambda *of: run.append(of[2]))
    counted = []
    for positions in (1, 32):
        run.clear()
        documents.count(EDGE, [Leaving("a", Budget(99), 1, tuple((n, n + 1) for n in range(positions)))])
        counted.append(len(run))
    assert counted[0] == counted[1] <= 6
    _, (quotes,) = documents.exposure("acme", "a")
    assert quotes.spans == ((0, 1, 2), *((n, n + 1, 1) for n in range(1, 32)))


def test_a_count_outlives_a_power_failure(tmp_path: Path) -> None:
    store = Documents(f"sqlite:///{tmp_path / 'd.db'}")
    waits: list[bool] = []

    def look(connection: Any) -> None:
        (level,) = connection.connection.driver_connection.execute("PRAGMA synchronous").fetchone()
        waits.append(level == 2)  # FULL: a commit waits for the disk

    event.listen(store._engine, "commit", look)
    store.count(EDGE, [Leaving("a", Budget(), 1), Leaving("b", Budget(positions=9), 1)])
    assert waits == [True]
    store.close()


def test_a_call_over_the_budget_writes_nothing_down(documents: Documents) -> None:
    documents.count(EDGE, [Leaving("a", Budget(10), 8, ((0, 3), (4, 7)))])
    with pytest.raises(ExposureSpent) as error:
        documents.count(EDGE, [Leaving("0", Budget(), 1), Leaving("a", Budget(10), 3, ((8, 9),))])
    assert 0 < error.value.retry_after_s <= 86_400
    assert documents.spent(EDGE, ["a", "0"]) == {"a": (8, 1, 8)}
    documents.count(EDGE, [Leaving("a", Budget(10), 2, ((0, 3),))])
    _, (quotes,) = documents.exposure("acme", "a")
    assert quotes.spans == ((0, 3, 2), (4, 7, 1))


@pytest.mark.parametrize("budget", [Budget(positions=30), Budget(questions=10)])
def test_many_at_once_never_have_more_than_the_budget(documents: Documents, budget: Budget) -> None:
    def take(number: int) -> bool:
        try:
            documents.count(EDGE, [Leaving("a", budget, 3), Leaving("b", Budget(), 1)])
        except ExposureSpent:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, range(24)))
    assert sum(taken) == 10
    assert documents.spent(EDGE, ["a", "b"]) == {"a": (30, 10, 30), "b": (10, 10, 10)}


def test_a_question_is_taken_back_on_the_day_that_it_was_counted_on(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Leaving("a", Budget(questions=2), 0)
    documents.count(EDGE, [asked])
    monkeypatch.setattr("cloud_node.exposure.today", lambda: "2999-01-01")
    documents.count(EDGE, [dataclasses.replace(asked, questions=-1)])
    assert [day.questions for day in documents.exposure("acme", "a")[0]] == [0]


def test_a_new_day_begins_at_midnight_utc(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    documents.count(EDGE, [Leaving("a", Budget(3), 3)])
    monkeypatch.setattr("cloud_node.exposure.today", lambda: "2999-01-01")
    assert documents.spent(EDGE, ["a"]) == {}
    documents.count(EDGE, [Leaving("a", Budget(3), 3)])
    assert [day.positions for day in documents.exposure("acme", "a")[0]] == [3, 3]
    assert 0 < seconds_left() <= 86_400


def test_counts_of_a_removed_document_stay_under_a_hash_and_its_quotes_go(tmp_path: Path) -> None:
    file = tmp_path / "d.db"
    store = Documents(f"sqlite:///{file}")
    store.add("acme", "divorce-of-ilse", "The key is under the stone.")
    store.count(EDGE, [Leaving("divorce-of-ilse", Budget(), 3, ((0, 3),))])
    store.grant("acme", "divorce-of-ilse", KIOSK)
    store.remove("acme", "divorce-of-ilse")
    left = sqlite3.connect(file)
    assert left.execute("SELECT document, positions FROM exposure").fetchall() == [
        (key_of("acme", "divorce-of-ilse"), 3)
    ]
    for table in ("exposed_characters", "document_grants", "documents"):
        assert left.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    left.close()
    bytes_left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"divorce-of-ilse" not in bytes_left and b"kiosk-3" not in bytes_left
    store.add("acme", "divorce-of-ilse", "Another text.")
    days, quotes = store.exposure("acme", "divorce-of-ilse")
    assert ([day.positions for day in days], quotes) == ([3], [])
    store.close()


def test_a_text_that_takes_anothers_place_has_nothing_quoted_of_it(documents: Documents) -> None:
    documents.count(EDGE, [Leaving("a", Budget(), 3, ((0, 3),))])
    documents.add("acme", "a", "Another text.", replace=True)
    days, quotes = documents.exposure("acme", "a")
    assert ([day.positions for day in days], quotes) == ([3], [])


async def test_every_slice_is_counted_with_the_characters_that_it_quotes(
    start_local: Start, config: CloudConfig
) -> None:
    cloud = await start_local()
    await cloud.share(cloud.request("note-1", QUESTION, plan=Plan(codec="raw", positions=4)))
    await cloud.share(cloud.request("note-1", QUESTION, kind=SliceKind.DRAFT, plan=Plan(codec="raw")))
    await cloud.share(cloud.request(None, QUESTION, kind=SliceKind.SHARED))
    ((identity, questions, positions),) = of(config)
    assert (identity, questions) == (ACME, 2) and positions > 4
    store = Documents(config.documents)
    _, (quotes,) = store.exposure("acme", "note-1")
    assert len(quotes.spans) == 4 and all(times == 1 for *_, times in quotes.spans)
    text = DOCUMENTS["acme", "note-1"]
    pieces = [text[begins:ends] for begins, ends, _ in quotes.spans]
    assert "".join(pieces) in text and all(pieces)
    store.close()


async def test_the_characters_of_a_passage_are_those_of_the_whole_document(
    start_local: Start, config: CloudConfig
) -> None:
    cloud = await start_local()
    request = cloud.request("long", QUESTION, plan=Plan(codec="raw", positions=4))
    sections = tuple(
        dataclasses.replace(s, passage=3) if s.document_id is not None else s for s in request.sections
    )
    await cloud.share(dataclasses.replace(request, sections=sections))
    store = Documents(config.documents)
    _, (quotes,) = store.exposure("acme", "long")
    (third,) = [hit for hit in store.search("acme", "Velmora", k=50) if hit.passage == 3]
    store.close()
    assert all(third.begins <= begins < ends <= third.ends for begins, ends, _ in quotes.spans)
    assert len(quotes.spans) == 4


async def test_a_call_over_the_budget_is_refused_before_any_work(
    start_local: Start, config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = await start_local(export=ExportPolicy(positions_per_day=10, allow_relay=True))
    await cloud.share(cloud.request("note-1", QUESTION, plan=Plan(codec="raw", positions=6)))
    monkeypatch.setattr(Sharer, "steps", lambda *_: 1 / 0)
    monkeypatch.setattr(Sharer, "answering", lambda *_: 1 / 0)
    with pytest.raises(ExposureSpent) as error:
        await cloud.share(cloud.request("note-1", QUESTION, plan=Plan(codec="raw", positions=5)))
    assert abs(error.value.retry_after_s - seconds_left()) < 60
    with pytest.raises(ExposureSpent):
        await cloud.relay("note-1", QUESTION, 5)
    with pytest.raises(InternalError):  # within the budget: it came as far as the model
        await cloud.share(cloud.request("note-1", QUESTION, plan=Plan(codec="raw", positions=4)))
    assert of(config) == [(ACME, 1, 6)]
    decisions = [line["decision"] for line in cloud_audit(cloud)]
    assert decisions.count("EXPOSURE_SPENT") == 2 and decisions.count("SENDING") == 1


async def test_a_slice_tells_in_how_many_runs_it_quotes_and_what_may_still_leave_today(
    start_local: Start,
) -> None:
    policy = ExportPolicy(profile="custom", max_runs=2, positions_per_day=30, questions_per_day=3)
    cloud = await start_local(export=policy)
    assert cloud.description.granted == policy.granted
    told = []
    for plan in (Plan(codec="raw", positions=4), Plan(codec="raw", positions=5, runs=2)):
        *_, end = await cloud.share(cloud.request("note-1", QUESTION, plan=plan))
        assert end.runs == 1 or plan.runs == 2
        told.append((end.quoted, end.positions_left, end.questions_left))
    assert told == [(4, 26, 2), (5, 21, 1)]
    *_, draft = await cloud.share(cloud.request("note-1", QUESTION, kind=SliceKind.DRAFT))
    assert (draft.quoted, draft.runs, draft.questions_left) == (0, 0, 0)
    assert draft.positions_left == 21 - draft.positions
    free = await start_local(export=ExportPolicy(), audit=f"{cloud.audit}.2")
    *_, end = await free.share(free.request("note-1", QUESTION))
    assert end.positions_left is end.questions_left is None and (end.quoted, end.runs) == (8, 1)


def cloud_audit(cloud: LocalCloud) -> list[dict[str, object]]:
    import json

    return [json.loads(line) for line in cloud.audit.read_text().splitlines()]


async def test_of_calls_at_once_no_more_are_served_than_the_budget_has(
    start_local: Start, config: CloudConfig
) -> None:
    cloud = await start_local(export=ExportPolicy(questions_per_day=3))
    asked = [cloud.request("note-1", f"{QUESTION} {number}") for number in range(8)]
    ended = await asyncio.gather(*(cloud.share(one) for one in asked), return_exceptions=True)
    assert sum(isinstance(one, list) for one in ended) == 3
    assert all(isinstance(one, list | ExposureSpent) for one in ended)
    ((_, questions, _),) = of(config)
    assert questions == 3


async def test_a_documents_own_budget_only_lowers_the_clouds(start_local: Start, config: CloudConfig) -> None:
    store = Documents(config.documents)
    store.add("acme", "own", "The key is under the stone.", questions_per_day=1)
    store.close()
    cloud = await start_local(export=ExportPolicy(questions_per_day=2))
    for document_id, most in (("own", 1), ("note-1", 2)):
        for _ in range(most):
            await cloud.share(cloud.request(document_id, QUESTION))
        with pytest.raises(ExposureSpent):
            await cloud.share(cloud.request(document_id, QUESTION))


async def test_a_search_is_a_question_of_what_it_finds_and_does_not_find_what_is_spent(
    start_local: Start, config: CloudConfig
) -> None:
    cloud = await start_local(export=ExportPolicy(questions_per_day=2))
    for _ in range(2):
        assert {found.document for found in await cloud.search("nine years")} == {"capped"}
    assert of(config, "capped") == [(ACME, 2, 0)]
    assert await cloud.search("nine years") == ()
    with pytest.raises(ExposureSpent):
        await cloud.share(cloud.request("capped", QUESTION))
    assert {found.document for found in await cloud.search("Brandvik", k=16)} == {"note-1"}


async def test_a_search_that_finds_nothing_is_a_question_of_who_asks(
    start_local: Start, config: CloudConfig
) -> None:
    cloud = await start_local(export=ExportPolicy(questions_per_day=2))
    for word in ("zanzibar", "quicksilver"):
        assert await cloud.search(word) == ()
    assert of(config, "") == [(ACME, 2, 0)]
    for word in ("zanzibar", "Brandvik"):  # one that would find nothing, and one that would not
        with pytest.raises(ExposureSpent) as error:
            await cloud.search(word)
        assert abs(error.value.retry_after_s - seconds_left()) < 60
    await cloud.share(cloud.request("note-1", QUESTION))
    assert of(config) == [(ACME, 1, 8)]


async def test_of_searches_at_once_none_is_refused_for_what_it_found(
    start_local: Start, config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = await start_local(export=ExportPolicy(questions_per_day=3))
    looked, search = list[str](), DocumentReader.search

    def watched(store: DocumentReader, tenant: str, query: str, *told: Any) -> Any:
        looked.append(query)
        return search(store, tenant, query, *told)

    monkeypatch.setattr(DocumentReader, "search", watched)
    words = [f"nine years {letter * 3}" for letter in "abcdefgh"]
    ended = await asyncio.gather(*map(cloud.search, words), return_exceptions=True)
    refused = {word for word, end in zip(words, ended, strict=True) if isinstance(end, ExposureSpent)}
    assert not refused & set(looked), "it was refused before it looked"
    assert all(isinstance(end, tuple | ExposureSpent) for end in ended)
    found = sum(bool(end) for end in ended if isinstance(end, tuple))
    assert of(config, "capped") == [(ACME, found, 0)] and 0 < found <= 3
    assert of(config, "") == [(ACME, len(words) - len(refused) - found, 0)]


async def test_a_call_that_is_given_up_while_the_store_waits_is_not_counted(
    start_local: Start, config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = await start_local(export=ExportPolicy())
    begun, ended = threading.Event(), threading.Event()
    count = Documents.count

    def watched(*told: Any) -> Any:
        begun.set()
        try:
            return count(*told)
        finally:
            ended.set()

    monkeypatch.setattr(Documents, "count", watched)
    with contextlib.closing(sqlite3.connect(config.documents.removeprefix("sqlite:///"))) as writer:
        writer.execute("BEGIN IMMEDIATE")
        asked = asyncio.ensure_future(cloud.share(cloud.request("note-1", QUESTION)))
        assert await asyncio.to_thread(begun.wait, 10)
        asked.cancel()
        while "CANCELLED" not in [line["decision"] for line in cloud_audit(cloud)]:
            await asyncio.sleep(0.01)
    assert await asyncio.to_thread(ended.wait, 10)
    assert of(config) == []


async def test_a_slice_waits_for_whoever_adds_a_document(start_local: Start, config: CloudConfig) -> None:
    cloud = await start_local(export=ExportPolicy())
    with contextlib.closing(sqlite3.connect(config.documents.removeprefix("sqlite:///"))) as writer:
        writer.execute("BEGIN IMMEDIATE")
        asked = asyncio.ensure_future(cloud.share(cloud.request("note-1", QUESTION)))
        await asyncio.sleep(3)  # as long as one of some hundred thousand characters takes
        writer.rollback()
    await asked
    assert [questions for _, questions, _ in of(config)] == [1]


async def test_a_relayed_token_is_a_position(start_local: Start, config: CloudConfig) -> None:
    cloud = await start_local(export=ExportPolicy(allow_relay=True))
    reply = await cloud.relay("note-1", QUESTION, 4)
    assert of(config) == [(ACME, 1, reply.tokens)]


async def test_where_it_cannot_be_counted_nothing_leaves(
    start_local: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = await start_local(export=ExportPolicy(allow_relay=True))

    def broken(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(Documents, "count", broken)
    with pytest.raises(AuditUnavailable):
        await cloud.share(cloud.request("note-1", QUESTION))
    with pytest.raises(AuditUnavailable):
        await cloud.relay("note-1", QUESTION, 4)
    with pytest.raises(AuditUnavailable):
        await cloud.search("Brandvik")
    assert all(line["decision"] != "SENDING" for line in cloud_audit(cloud))


async def test_a_document_granted_to_others_is_not_there_for_share_relay_and_search(
    start_local: Start, config: CloudConfig
) -> None:
    store = Documents(config.documents)
    cloud = await start_local(export=ExportPolicy(allow_relay=True))
    await cloud.share(cloud.request("note-1", QUESTION))  # read, and in the prefix cache
    store.grant("acme", "note-1", KIOSK)
    told = []
    for document_id in ("note-1", "nobodys", "foreign"):
        for ask in (cloud.share(cloud.request(document_id, QUESTION)), cloud.relay(document_id, QUESTION, 4)):
            with pytest.raises(NotFound) as error:
                await ask
            told.append((type(error.value), error.value.public_text, str(error.value.metadata())))
    assert len(set(told)) == 1
    assert await cloud.search("Brandvik") == ()
    store.grant("acme", "note-1", ACME)
    await cloud.share(cloud.request("note-1", QUESTION))
    assert [found.document for found in await cloud.search("Brandvik")] == ["note-1"]
    store.close()


def test_grants_name_edges_of_the_tenant_and_the_last_one_revoked_leaves_nobody(documents: Documents) -> None:
    assert documents.granted("acme", "a") is None
    for identity in ("spiffe://kvwire/edge/other", "spiffe://kvwire/cloud/main", "kiosk-3"):
        with pytest.raises(ValueError, match=r"no edge of tenant|not an identity"):
            documents.grant("acme", "a", identity)
    documents.grant("acme", "a", KIOSK, ACME, KIOSK)
    documents.grant("acme", "a", KIOSK)
    assert documents.granted("acme", "a") == (ACME, KIOSK)
    documents.add("acme", "a", "Another text.", replace=True)
    documents.revoke("acme", "a", KIOSK)
    assert documents.granted("acme", "a") == (ACME,)
    with pytest.raises(ValueError, match="was not granted"):
        documents.revoke("acme", "a", KIOSK)
    documents.revoke("acme", "a", ACME)
    assert documents.granted("acme", "a") == ()
    with pytest.raises(NotFound):
        documents.find("acme", ["a"], Principal(Identity.parse(ACME)))
    documents.open_to_all("acme", "a")
    assert documents.granted("acme", "a") is None
    assert documents.find("acme", ["a"], Principal(Identity.parse(KIOSK)))[0].id == "a"
    for act in (documents.grant, documents.revoke, documents.open_to_all, documents.granted):
        with pytest.raises(NotFound):
            act("other", "a")


def test_what_is_not_granted_changes_no_score(documents: Documents) -> None:
    before = documents.search("acme", "key stone", caller=Principal(Identity.parse(ACME)))
    documents.add("acme", "b", "key key key stone")
    documents.grant("acme", "b", KIOSK)
    assert documents.search("acme", "key stone", caller=Principal(Identity.parse(ACME))) == before
    kiosk = Principal(Identity.parse(KIOSK))
    assert {hit.document for hit in documents.search("acme", "key stone", caller=kiosk)} == {"a", "b"}


async def test_the_audit_log_alone_tells_what_left_as_the_store_does(
    start_local: Start, config: CloudConfig
) -> None:
    cloud = await start_local(export=ExportPolicy(allow_relay=True))
    store = Documents(config.documents)
    for kind in (SliceKind.EXCERPT, SliceKind.EXCERPT, SliceKind.DRAFT):
        await cloud.share(cloud.request("note-1", QUESTION, kind=kind))
    two = cloud.request("note-1", QUESTION, plan=Plan(codec="raw", positions=6))
    other = Section(Role.DOCUMENT, Visibility.CLOUD, document_id="long", passage=2)
    await cloud.share(dataclasses.replace(two, sections=(other, *two.sections)))
    await cloud.relay("note-1", QUESTION, 4)
    assert await cloud.search("Brandvik")
    for document_id in ("note-1", "long"):
        (told,) = exposure_in(lines(cloud.audit), "acme", document_id).items()
        version, (days, quotes) = told
        assert version == store.get("acme", document_id).version
        stored_days, stored_quotes = store.exposure("acme", document_id)
        assert (days, quotes) == (stored_days, stored_quotes) and days[0].positions > 0
    before = store.get("acme", "note-1")
    now = store.add("acme", "note-1", "Another text, and no key.", replace=True)
    await cloud.share(cloud.request("note-1", QUESTION))
    store.close()
    assert set(exposure_in(lines(cloud.audit), "acme", "note-1")) == {before.version, now.version}
    of_one = exposure_in(lines(cloud.audit), "acme", "note-1", hash_of(before.text))
    assert set(of_one) == {before.version}, "by its text alone"


def test_a_line_without_versions_is_counted_under_none(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.append(
        AuditRecord(
            method="Share",
            tenant="acme",
            identity=ACME,
            documents=("a", "b"),
            kind="shared",
            positions=3,
            decision="SENDING",
        )
    )
    log.close()
    ((version, (days, quotes)),) = exposure_in(lines(log.path), "acme", "b").items()
    assert (version, quotes) == ("", []) and [(day.identity, day.positions) for day in days] == [(ACME, 3)]


@pytest.mark.parametrize("when", ["before the last look", "between the last look and the count"])
async def test_a_slice_of_a_text_that_was_replaced_since_it_was_read_does_not_leave(
    start_local: Start, config: CloudConfig, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    cloud = await start_local()
    header, *_ = await cloud.share(cloud.request("note-1", QUESTION))
    store = Documents(config.documents)
    assert header.versions == (store.get("acme", "note-1").version,)
    place, name = (Sharer, "steps") if when == "before the last look" else (DocumentReader, "count")
    own = getattr(place, name)

    def replaced(*told: Any) -> Any:
        monkeypatch.undo()
        store.add(
            "acme", "note-1", DOCUMENTS["acme", "note-1"], replace=True
        )  # the same words are another text
        return own(*told)

    monkeypatch.setattr(place, name, replaced)
    with pytest.raises(Busy):
        await cloud.share(cloud.request("note-1", QUESTION))
    days, quotes = store.exposure("acme", "note-1")
    assert ([day.questions for day in days], quotes) == ([1], [])
    again, *_ = await cloud.share(cloud.request("note-1", QUESTION))
    assert again.versions == (store.get("acme", "note-1").version,) != header.versions
    told = [line["versions"] for line in lines(cloud.audit) if line["decision"] == "SENDING"]
    assert told == [list(header.versions), list(again.versions)]
    store.close()


async def test_each_document_has_its_version_and_passages_of_two_texts_of_one_are_not_mixed(
    start_local: Start, config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = await start_local(export=ExportPolicy(allow_relay=True))
    store = Documents(config.documents)
    one = cloud.request("note-1", QUESTION)
    two = [Section(Role.DOCUMENT, Visibility.CLOUD, document_id="long", passage=n) for n in (1, 2)]
    request = dataclasses.replace(one, sections=(*two, *one.sections))
    header, *_ = await cloud.share(request)
    assert header.versions == tuple(store.get("acme", name).version for name in ("long", "note-1"))
    assert (await cloud.relay("long", QUESTION, 2)).versions == header.versions[:1]
    get = DocumentReader.get

    def replaced(*told: Any) -> Any:
        monkeypatch.undo()
        document = get(*told)
        store.add("acme", "long", DOCUMENTS["acme", "long"], replace=True)
        return document

    monkeypatch.setattr(DocumentReader, "get", replaced)
    with pytest.raises(Busy):
        await cloud.share(dataclasses.replace(request, request_id=bytes(16)))
    store.close()


def test_a_position_that_left_before_is_not_new(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = documents.get("acme", "a").version

    def take(*quoted: tuple[int, int], positions: int | None = None, who: Principal = EDGE) -> dict[str, int]:
        count = len(quoted) if positions is None else positions
        budget = Budget(new_positions=4)
        return documents.count(who, [Leaving("a", budget, count, quoted, version)])

    assert take((0, 3), (4, 7)) == {"new_positions_left": 2}
    assert take((0, 3), (4, 7)) == {"new_positions_left": 2}, "the same question costs nothing"
    assert take((4, 7), (8, 10)) == {"new_positions_left": 1}
    with pytest.raises(ExposureSpent) as error:
        take((11, 13), (14, 15))
    assert 0 < error.value.retry_after_s <= 86_400
    with pytest.raises(ExposureSpent):
        take((0, 3), positions=3)  # two of them nobody chose in the document: they could be any
    assert take((0, 3), positions=2) == {"new_positions_left": 0}
    assert take((0, 3), (4, 7), (8, 10)) == {"new_positions_left": 0}
    user = Principal(EDGE.identity, "ada")
    with pytest.raises(ExposureSpent):  # new to the user, and to the edge
        take((11, 13), who=user)
    assert take((0, 3), who=user) == {"new_positions_left": 0}
    assert take((11, 13), who=Principal(Identity.parse(KIOSK))) == {"new_positions_left": 3}
    days, _ = documents.exposure("acme", "a")
    assert [(d.identity, d.questions, d.positions, d.new_positions) for d in days] == [
        (ACME, 6, 12, 4),
        (KIOSK, 1, 1, 1),
        ("user:ada", 1, 1, 1),
    ]
    monkeypatch.setattr("cloud_node.exposure.today", lambda: "2999-01-01")
    assert take((0, 3), (4, 7), (11, 13)) == {"new_positions_left": 3}, "what left on another day is not new"


def test_all_of_a_text_that_takes_anothers_place_is_new(documents: Documents) -> None:
    for number in range(2):
        version = documents.get("acme", "a").version
        told = documents.count(EDGE, [Leaving("a", Budget(new_positions=4), 2, ((0, 3), (4, 7)), version)])
        assert told == {"new_positions_left": 2 - 2 * number}
        with pytest.raises(Busy):
            documents.count(EDGE, [Leaving("a", Budget(), 1, (), "0" * 32)])
        documents.add("acme", "a", "The lock is under the stone.", replace=True)
    documents.remove("acme", "a")
    with pytest.raises(NotFound):
        documents.count(EDGE, [Leaving("a", Budget(), 1, (), version)])


def test_many_at_once_never_have_more_new_positions_than_the_budget(documents: Documents) -> None:
    version = documents.get("acme", "a").version

    def take(number: int) -> bool:
        quoted = ((number % 6, 7), (number % 12, 8))
        try:
            documents.count(EDGE, [Leaving("a", Budget(new_positions=9), 2, quoted, version)])
        except ExposureSpent:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        taken = [number for number, left in enumerate(pool.map(take, range(24))) if left]
    left = {span for number in taken for span in ((number % 6, 7), (number % 12, 8))}
    ((day,), (quotes,)) = documents.exposure("acme", "a")
    assert {(begins, ends) for begins, ends, _ in quotes.spans} == left
    assert 0 < day.new_positions == len(left) <= 9 and 0 < len(taken) < 24


async def test_a_question_whose_run_has_left_is_answered_when_no_new_position_may_leave(
    start_local: Start, config: CloudConfig
) -> None:
    cloud = await start_local(export=ExportPolicy(new_positions_per_day=6, allow_relay=True))
    asked = [cloud.request("note-1", QUESTION, plan=Plan(codec="raw", positions=6)) for _ in range(2)]
    for request in asked:
        *_, end = await cloud.share(request)
        assert (end.new_positions_left, end.positions_left) == (0, None)
    for ask in (
        cloud.share(cloud.request("note-1", QUESTION, plan=Plan(codec="raw", positions=8))),
        cloud.share(cloud.request("note-1", QUESTION, kind=SliceKind.DRAFT)),
        cloud.relay("note-1", QUESTION, 4),
    ):
        with pytest.raises(ExposureSpent) as error:
            await ask
        assert abs(error.value.retry_after_s - seconds_left()) < 60
    store = Documents(config.documents)
    (day,), _ = store.exposure("acme", "note-1")
    # That of the run was refused once it had been read, which tells of the run: it was a question too.
    assert (day.questions, day.positions, day.new_positions) == (3, 12, 6)
    store.add("acme", "note-1", DOCUMENTS["acme", "note-1"], replace=True, new_positions_per_day=3)
    store.close()
    with pytest.raises(ExposureSpent):
        await cloud.share(cloud.request("note-1", QUESTION, plan=Plan(codec="raw", positions=4)))


async def test_refusals_tell_no_more_often_than_questions_may_be_asked(
    start_local: Start, config: CloudConfig
) -> None:
    cloud = await start_local(export=ExportPolicy(new_positions_per_day=6, questions_per_day=3))
    looked, steps = list[str](), Sharer.steps
    await cloud.share(cloud.request("note-1", QUESTION, plan=Plan(codec="raw", positions=6)))
    for positions in (7, 8):
        with pytest.raises(ExposureSpent):
            await cloud.share(cloud.request("note-1", QUESTION, plan=Plan(codec="raw", positions=positions)))
    assert of(config) == [(ACME, 3, 6)]

    def watched(*told: Any) -> Any:
        looked.append("read")
        return steps(*told)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Sharer, "steps", watched)
        with pytest.raises(ExposureSpent):
            await cloud.share(cloud.request("note-1", QUESTION, plan=Plan(codec="raw", positions=7)))
    assert not looked and of(config) == [(ACME, 3, 6)]


def test_a_search_over_midnight_is_taken_back_of_the_day_on_which_it_was_counted(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = ExportPolicy(questions_per_day=1)
    for module in ("exposure", "export"):
        monkeypatch.setattr(f"cloud_node.{module}.today", lambda: "2999-01-01", raising=False)
    nothing = leaving_nothing(policy)
    documents.count(EDGE, [nothing])
    for module in ("exposure", "export"):
        monkeypatch.setattr(f"cloud_node.{module}.today", lambda: "2999-01-02", raising=False)
    documents.count(EDGE, [dataclasses.replace(nothing, questions=-1)])
    documents.count(EDGE, [leaving_nothing(policy)])
    with pytest.raises(ExposureSpent):
        documents.count(EDGE, [leaving_nothing(policy)])


async def test_an_old_run_is_answered_where_the_bound_of_new_positions_was_lowered_below_what_left(
    start_local: Start,
) -> None:
    cloud, asked = await start_local(), Plan(codec="raw", positions=6)
    for most in (6, 3):
        policy = ExportPolicy(new_positions_per_day=most)
        cloud.service._config = dataclasses.replace(cloud.service._config, export=policy)
        *_, end = await cloud.share(cloud.request("note-1", QUESTION, plan=asked))
        assert end.new_positions_left == 0
