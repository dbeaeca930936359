import hashlib
import stat
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from cloud_node.config import CloudConfig
from cloud_node.documents import MAX_DOCUMENT_CHARS, Documents, hash_of, look
from kvwire.errors import NotFound, TooLarge
from kvwire.section import Role, Section, Visibility
from tests.cloud_node.conftest import Start

QUESTION = "Who keeps the spare key?"
CANARY = "zebra-canary-7731"


@pytest.fixture
def documents(store_url: str) -> Iterator[Documents]:
    documents = Documents(store_url)
    yield documents
    documents.close()


def test_a_document_comes_back_as_it_was_put(documents: Documents) -> None:
    text = "图书馆 🌧️ e\u0301 \x07 end\n"
    documents.add("acme", "note-1", text, max_positions=5)
    document = documents.get("acme", "note-1")
    assert (document.text, document.max_positions) == (text, 5)
    assert documents.find("acme", ["note-1"])[0].characters == len(text)


@pytest.mark.parametrize(
    ("text", "said"), [("", "no text"), (" \n\t\u3000", "no text"), ("a\0b", "character 1 is NUL")]
)
def test_a_document_that_nobody_could_read_is_refused(documents: Documents, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"document a: .*{said}"):
        documents.add("acme", "a", text)
    assert documents.list("acme") == []


@pytest.mark.parametrize("tenant", ["", "Acme Corp", "ü", "a/b", "x" * 65])
def test_a_tenant_that_no_certificate_can_name_has_no_documents(documents: Documents, tenant: str) -> None:
    with pytest.raises(ValueError, match="not a tenant name"):
        documents.add(tenant, "a", "text")


def test_a_document_tells_its_version_its_source_and_when_it_came(documents: Documents) -> None:
    before = datetime.now(UTC)
    old = documents.add("acme", "a", "old", source="/notes/a.txt")
    assert old.text_hash == hash_of("old") == hashlib.sha256(b"old").hexdigest()[:32]
    assert old.source == "/notes/a.txt" and old.added is not None and before <= old.added <= datetime.now(UTC)
    new = documents.add("acme", "a", "new", replace=True)
    assert (new.text_hash, new.source) == (hash_of("new"), None)
    again = documents.add("acme", "a", "new", replace=True)
    assert {len(one.version) for one in (old, new, again)} == {32}
    assert len({one.version for one in (old, new, again)}) == 3, "drawn anew, whatever the text"
    assert new.added is not None and new.added >= old.added
    assert documents.list("acme") == [again]


def test_unknown_and_foreign_documents_are_not_found_alike(documents: Documents) -> None:
    documents.add("other", "theirs", "text")
    errors = []
    for name in ("theirs", "nobodys"):
        for ask in (documents.get, documents.remove, lambda tenant, name: documents.find(tenant, [name])):
            with pytest.raises(NotFound) as error:
                ask("acme", name)
            errors.append((error.value.public_text, error.value.metadata()))
    assert len({str(error) for error in errors}) == 1
    assert documents.get("other", "theirs").text == "text"


def test_unknown_and_foreign_documents_take_the_same_time(documents: Documents) -> None:
    documents.add("other", "theirs", "x" * 200_000)

    times: dict[str, list[float]] = {"nobodys": [], "theirs": []}
    for _ in range(100):
        for name, taken in times.items():
            start = time.perf_counter()
            with pytest.raises(NotFound):
                documents.find("acme", [name])
            taken.append(time.perf_counter() - start)
    unknown_s, foreign_s = (statistics.median(taken) for taken in times.values())
    assert abs(unknown_s - foreign_s) < 0.5 * max(unknown_s, foreign_s)


def test_find_names_no_document_that_is_missing(documents: Documents) -> None:
    documents.add("acme", "a", "1")
    documents.add("acme", "b", "22", max_positions=0)
    assert [info.characters for info in documents.find("acme", ["b", "a", "b"])] == [2, 1, 2]
    with pytest.raises(NotFound) as error:
        documents.find("acme", ["a", "secret-name"])
    assert "secret-name" not in str(error.value)


def test_a_second_document_with_an_id_is_refused_unless_it_replaces(documents: Documents) -> None:
    documents.add("acme", "a", "old")
    with pytest.raises(ValueError, match="exists"):
        documents.add("acme", "a", "new")
    documents.add("acme", "a", "new", replace=True)
    documents.add("other", "a", "another tenant's")
    assert documents.get("acme", "a").text == "new"


def test_list_and_remove_keep_to_the_tenant(documents: Documents) -> None:
    for tenant, name in (("acme", "b"), ("acme", "a"), ("other", "c")):
        documents.add(tenant, name, "text")
    assert [info.id for info in documents.list("acme")] == ["a", "b"]
    documents.remove("acme", "a")
    assert [info.id for info in documents.list("acme")] == ["b"]
    assert [info.id for info in documents.list("other")] == ["c"]


@pytest.mark.parametrize("name", ["", "a b", "ä", "-a", "a\n", "x" * 257, "a'; drop table documents"])
def test_an_id_that_is_none_is_refused(documents: Documents, name: str) -> None:
    with pytest.raises(ValueError, match="document id"):
        documents.add("acme", name, "text")


def test_a_text_over_the_limit_is_refused(documents: Documents) -> None:
    documents.add("acme", "a", "x" * MAX_DOCUMENT_CHARS)
    with pytest.raises(ValueError, match="over"):
        documents.add("acme", "b", "x" * (MAX_DOCUMENT_CHARS + 1))


async def test_a_document_too_long_for_a_prompt_is_asked_about_by_passage(
    config: CloudConfig, start_local: Start
) -> None:
    documents = Documents(config.documents)
    longest = config.limits.max_prompt_chars - config.limits.max_question_chars
    documents.add("acme", "longest", "word " * (longest // 5) + "x" * (longest % 5))
    cloud = await start_local()
    with pytest.raises(TooLarge) as error:
        await cloud.share(cloud.request("longest", "w" * config.limits.max_question_chars))
    assert error.value.what == "prompt tokens"  # no characters: this replica has less room than the wire
    documents.add("acme", "longest", "word " * (longest // 5 + 1), replace=True)
    with pytest.raises(TooLarge) as error:
        await cloud.share(cloud.request("longest", "w" * config.limits.max_question_chars))
    assert error.value.what == "prompt characters"
    question = cloud.request("longest", QUESTION).sections[1]
    passage = Section(Role.DOCUMENT, Visibility.CLOUD, document_id="longest", passage=200)
    header, *_ = await cloud.share(cloud.request("longest", QUESTION, sections=(passage, question)))
    assert header.positions == 12


def test_the_text_is_in_no_repr_and_no_database_error(tmp_path: Path) -> None:
    documents = Documents(f"sqlite:///{tmp_path / 'documents.db'}")
    documents.add("acme", "a", CANARY)
    assert CANARY not in repr(documents.get("acme", "a"))
    documents.close()
    (tmp_path / "documents.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(SQLAlchemyError) as error:
        documents.add("acme", "b", CANARY)
    assert CANARY not in str(error.value)


def test_a_new_store_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'documents.db'}"
    with ThreadPoolExecutor(8) as threads:
        stores = [*threads.map(Documents, [url] * 8)]
        for info in threads.map(lambda n: stores[n].add("acme", f"n{n}", f"text {n}"), range(8)):
            assert info.characters == 6
    assert len(stores[0].list("acme")) == len(stores[0].search("acme", "text", 20)) == 8


def test_the_file_is_for_its_owner_only_and_two_stores_share_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'documents.db'}"
    first, second = Documents(url), Documents(url)
    first.add("acme", "a", "text")
    assert second.get("acme", "a").text == "text"
    assert stat.S_IMODE((tmp_path / "documents.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("opened", [look, Documents])
def test_a_database_whose_machine_is_gone_is_given_up(opened: Callable[[str], object]) -> None:
    pytest.importorskip("psycopg")
    given: dict[str, object] = {}

    def connecting(dialect: object, record: object, arguments: object, named: dict[str, object]) -> None:
        given.update(named)
        raise ConnectionRefusedError

    event.listen(Engine, "do_connect", connecting)
    try:
        with pytest.raises(ConnectionRefusedError):
            opened("postgresql+psycopg://kvwire@127.0.0.1/documents?connect_timeout=7")
    finally:
        event.remove(Engine, "do_connect", connecting)
    assert (given["connect_timeout"], given["tcp_user_timeout"]) == ("7", 10_000)
