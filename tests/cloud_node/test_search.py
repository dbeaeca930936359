"""Search in the store of documents: passages, words, tenants, and that what is forgotten is forgotten."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_node.documents import Documents
from cloud_node.passages import PASSAGE_CHARS, passages, words_of
from kvwire.errors import NoPassage, NotFound
from kvwire.segment import SliceKind

CANARY = "zebracanary7731"


@pytest.fixture
def documents(store_url: str) -> Iterator[Documents]:
    """An empty store."""
    documents = Documents(store_url)
    yield documents
    documents.close()


@given(st.lists(st.text("ab .\n", max_size=2_000), max_size=6).map("\n\n".join))
def test_passages_are_the_whole_text_but_for_blanks_between_and_none_is_too_long(text: str) -> None:
    ranges = list(passages(text))
    assert "".join("".join(text[begins:ends] for begins, ends in ranges).split()) == "".join(text.split())
    assert all(0 < ends - begins <= PASSAGE_CHARS for begins, ends in ranges)
    assert all(text[begins:ends] == text[begins:ends].strip() for begins, ends in ranges)


def test_a_passage_ends_with_a_paragraph_else_with_a_sentence_else_with_a_word() -> None:
    def first(text: str) -> str:
        begins, ends = next(passages(text))
        return text[begins:ends]

    sentence = "The tide is at nine. "
    assert first(sentence * 30 + "\n\n" + sentence * 50) == (sentence * 30).strip()
    assert first(sentence * 100).endswith("nine.") and len(first(sentence * 100)) > 950
    assert first("word " * 400).endswith("word")
    assert first("x" * 2_000) == "x" * PASSAGE_CHARS


def test_a_search_says_where_its_words_stand_and_the_rarest_count_most(documents: Documents) -> None:
    filler = "The harbour master writes the tide into the ledger. " * 25 + "\n\n"
    text = filler * 3 + "The spare key lies under the flowerpot.\n\n" + filler * 2
    documents.add("acme", "long", text)
    documents.add("acme", "other", filler)
    best, *_ = documents.search("acme", "Where is the spare key of the harbour?", 3)
    assert best.document == "long" and "spare key" in text[best.begins : best.ends]
    assert list(passages(text))[best.passage - 1] == (best.begins, best.ends)
    assert documents.get("acme", "long", best.passage).text == text[best.begins : best.ends]
    assert documents.find("acme", ["long"])[0].passages == len(list(passages(text)))
    found = documents.search("acme", "harbour", 20)
    assert len(found) > 5 and [hit.score for hit in found] == sorted(
        (hit.score for hit in found), reverse=True
    )
    assert len(documents.search("acme", "harbour", 2)) == 2
    assert [hit.document for hit in documents.search("acme", "flowerpots")] == ["long"]  # by its stem
    assert documents.search("acme", "nowhere") == ()


def test_the_words_that_make_a_question_do_not_decide(documents: Documents) -> None:
    documents.add("acme", "note", "The spare key lies under the flowerpot.")
    for number in range(9):
        documents.add("acme", f"key-{number}", "Each key has a number.")
    documents.add("acme", "where", "Where is it, and where is it to be?")
    assert documents.search("acme", "Where is the flowerpot?")[0].document == "note"
    assert "where" not in {hit.document for hit in documents.search("acme", "Where is the key?", 20)}
    assert documents.search("acme", "where is it") == ()


def test_words_are_found_in_other_forms_and_scripts(documents: Documents) -> None:
    assert list(words_of("The Prüfungen of ORDER-2024a 图书馆在 か")) == [
        "prufun", "order", "2024a", "图书", "书馆", "馆在", "か"
    ]  # fmt: skip
    documents.add("acme", "zh", "图书馆在河边，星期三上午九点开门。")
    documents.add("acme", "de", "Die Prüfung beginnt um neun.")
    assert [hit.document for hit in documents.search("acme", "图书馆几点开门?")] == ["zh"]
    assert [hit.document for hit in documents.search("acme", "PRÜFUNGEN")] == ["de"]


def test_a_score_is_the_share_of_the_most_that_a_passage_could_have(documents: Documents) -> None:
    documents.add("acme", "a", "The spare key lies under the flowerpot.")
    documents.add("acme", "b", "A boat.")
    (whole,) = documents.search("acme", "spare key")
    (half,) = documents.search("acme", "spare wheel")
    assert 0 < half.score < whole.score <= 1


def test_no_score_tells_of_words_of_another_tenant_or_of_a_sealed_document(documents: Documents) -> None:
    """Or who adds documents of his own could learn whether theirs have a word: it would be less rare."""
    for number in range(4):
        documents.add("acme", f"n{number}", f"Note {number} of the harbour master.")
    documents.add("acme", "key", "The spare key of the harbour.")
    kinds = [SliceKind.EXCERPT]
    before = documents.search("acme", "spare harbour key", 9, kinds)
    for number in range(9):
        documents.add("other", f"n{number}", f"A spare key {CANARY}." * 9)
        documents.add("acme", f"sealed-{number}", "A spare key, sealed.", max_positions=0)
        documents.add("acme", f"kept-{number}", "A spare key, kept.", kinds=())
        documents.add("acme", f"drafted-{number}", "A spare key, for drafts.", kinds=[SliceKind.DRAFT])
    assert documents.search("acme", "spare harbour key", 9, kinds) == before
    assert len(documents.search("acme", "spare", 99, [SliceKind.DRAFT])) == 10
    assert len(documents.search("acme", "spare", 99)) == 28


@pytest.mark.parametrize(
    "query",
    [
        '"',
        "a AND",
        "NOT",
        "key*",
        "text:key",
        "(key",
        "^key + -",
        'NEAR("key" "x", 5)',
        "_",
        "' OR 1=1 --",
        "\0key",
        "%",
    ],
)
def test_no_query_is_an_operator(documents: Documents, query: str) -> None:
    documents.add("acme", "a", "The spare key lies under the flowerpot.")
    found = documents.search("acme", query)
    assert [hit.document for hit in found] == (["a"] if "key" in query else [])


@given(query=st.text(max_size=60))
def test_any_text_is_a_query(query: str) -> None:
    documents = Documents("sqlite://")
    documents.add("acme", "a", "The spare key lies under the flowerpot.")
    documents.search("acme", query)
    documents.close()


def test_a_query_of_very_many_words_is_answered(documents: Documents) -> None:
    documents.add("acme", "a", "w7 and others")
    assert documents.search("acme", " ".join(f"w{n}" for n in range(5_000)))
    with pytest.raises(ValueError, match="k starts at 1"):
        documents.search("acme", "w7", 0)


def test_a_search_keeps_to_the_tenant(documents: Documents) -> None:
    documents.add("acme", "a", "The spare key.")
    documents.add("other", "a", "The spare key, elsewhere.")
    documents.add("other", "b", f"The spare key {CANARY}.")
    assert [(hit.document, hit.ends) for hit in documents.search("acme", f"spare key {CANARY}", 9)] == [
        ("a", 14)
    ]
    assert documents.search("nobody", "spare key") == ()
    documents.remove("other", "a")
    assert [hit.document for hit in documents.search("acme", "spare")] == ["a"]


def test_a_new_text_is_found_by_its_own_words_alone(documents: Documents) -> None:
    documents.add("acme", "a", "old words " * 400)
    documents.add("acme", "a", "new thoughts", replace=True)
    assert documents.search("acme", "old") == ()
    assert [(hit.passage, hit.begins, hit.ends) for hit in documents.search("acme", "thoughts")] == [
        (1, 0, 12)
    ]
    assert documents.get("acme", "a", 1).text == "new thoughts"
    with pytest.raises(NoPassage) as error:
        documents.get("acme", "a", 2)
    assert error.value.metadata() == {"passage": "2"}
    with pytest.raises(NotFound) as unknown:
        documents.get("other", "a", 1)
    assert type(unknown.value) is NotFound


def holds(folder: Path, words: bytes) -> list[str]:
    """The files beside the store that hold words, in any letters."""
    return [file.name for file in folder.iterdir() if words in file.read_bytes().lower()]


@pytest.mark.parametrize("how", ["remove", "replace", "replace many"])
def test_what_is_forgotten_is_in_no_file_while_the_store_is_open(tmp_path: Path, how: str) -> None:
    url = f"sqlite:///{tmp_path / 'documents.db'}"
    documents, node = Documents(url), Documents(url)
    for number in range(20):
        documents.add("acme", f"n{number}", f"Note {number} on tides and keys. " * 40)
    documents.add("acme", "secret", f"The word is {CANARY}, said the harbour master. " * 60)
    assert node.search("acme", CANARY) and node.get("acme", "secret").text
    assert holds(tmp_path, CANARY.encode())
    if how == "remove":
        documents.remove("acme", "secret")
    else:
        documents.add("acme", "secret", "Another text.", replace=True, wipe=how == "replace")
        if how == "replace many":
            documents.wipe()
    assert holds(tmp_path, CANARY.encode()) == holds(tmp_path, b"said the harbour") == []
    assert node.search("acme", CANARY) == ()
    with sqlite3.connect(tmp_path / "documents.db") as connection:
        connection.execute("VACUUM")
    assert holds(tmp_path, CANARY.encode()) == []


def test_a_reader_who_keeps_what_was_removed_in_the_log_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    documents = Documents(f"sqlite:///{tmp_path / 'documents.db'}")
    documents.add("acme", "secret", CANARY)
    with sqlite3.connect(tmp_path / "documents.db", isolation_level=None) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT id FROM documents").fetchall() == [("secret",)]
        documents.remove("acme", "secret")
        assert "stays in SQLite's log" in caplog.text and CANARY not in caplog.text
        reader.execute("COMMIT")
    documents.wipe()
    assert holds(tmp_path, CANARY.encode()) == []


def test_no_text_is_stored_twice(tmp_path: Path) -> None:
    documents = Documents(f"sqlite:///{tmp_path / 'documents.db'}")
    documents.add("acme", "a", f"The word is {CANARY} and the harbour master said so.")
    documents.close()
    raw = (tmp_path / "documents.db").read_bytes()
    assert raw.count(b"and the harbour master said so") == 1


def test_removing_forgets_all_or_none(documents: Documents) -> None:
    documents.add("acme", "a", "spare key")
    documents.add("acme", "b", "spare key")
    with pytest.raises(NotFound, match="no document 'nosuch' of tenant 'acme'"):
        documents.remove("acme", "a", "nosuch")
    assert [hit.document for hit in documents.search("acme", "spare")] == ["a", "b"]
    documents.remove("acme", "a", "b", "a")
    assert documents.list("acme") == []
