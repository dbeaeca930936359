"""Texts of one's own become pieces with questions, parted by document, and nothing is left out uncounted."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fuser.lab.data.load import load
from fuser.lab.data.rows import BadRow
from fuser.lab.pair.texts import MOST, counted, cut, read_corpus, write_items

NAMES = (
    "Ilse",
    "Oskar",
    "Petra",
    "Quirin",
    "Rosa",
    "Stefan",
    "Tilda",
    "Ulrich",
    "Vera",
    "Wanda",
    "Xaver",
    "Yara",
)


def note(name: str, number: int) -> str:
    return (
        f"The spare key of the boat house is kept by {name} under the stone number {number}. "
        f"It was last seen there on the {number}th of the month, and the warden of {name}town wrote it down."
    )


def write_notes(directory: Path, count: int = 12) -> Path:
    directory.mkdir()
    for number, name in enumerate(NAMES[:count], 3):
        (directory / f"{name}.txt").write_text(note(name, number), encoding="utf-8")
    return directory


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_no_document_is_in_two_splits_and_every_answer_stands_in_its_piece(tmp_path: Path) -> None:
    corpus = read_corpus(write_notes(tmp_path / "notes"))
    assert corpus.documents == 12
    splits = (corpus.train, corpus.plans, corpus.held_out)
    assert [len(split) for split in splits] == [8, 2, 2]
    names = [{item.source for item in split} for split in splits]
    assert not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]
    for item in (item for split in splits for item in split):
        assert item.questions
        for question in item.questions:
            assert question.answers[0] in item.document
    assert read_corpus(tmp_path / "notes") == corpus
    assert not corpus.left_out


def test_a_long_text_is_cut_into_pieces_and_all_of_it_is_asked_about(tmp_path: Path) -> None:
    notes = write_notes(tmp_path / "notes")
    long = "\n\n".join(note(f"{name}a", number) for name in NAMES for number in range(20, 30))
    (notes / "long.md").write_text(long, encoding="utf-8")
    corpus = read_corpus(notes)
    pieces = [
        i.document
        for split in (corpus.train, corpus.plans, corpus.held_out)
        for i in split
        if i.source == "long.md"
    ]
    assert len(pieces) > 20 and max(map(len, pieces)) <= MOST
    assert sorted(" ".join(pieces).split()) == sorted(long.split())
    assert not corpus.left_out


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    notes = write_notes(tmp_path / "notes")
    (notes / "again.txt").write_text(note("Ilse", 3), encoding="utf-8")  # the text of another
    (notes / "short.txt").write_text("Too short.", encoding="utf-8")
    (notes / "blank.txt").write_text(" \n", encoding="utf-8")
    (notes / "latin.txt").write_bytes("Müller".encode("latin-1"))
    (notes / "picture.png").write_bytes(b"\x89PNG")
    assert read_corpus(notes).left_out == Counter(
        {
            "paragraphs that stand twice": 1,
            "pieces of text under 100 characters": 1,
            "files without text": 1,
            "files that are not UTF-8": 1,
            "files that are not .txt or .md": 1,
        }
    )
    assert counted(Counter({"files that are not UTF-8": 1_200})) == "1,200 files that are not UTF-8"
    assert counted(Counter()) == "nothing"


def test_questions_of_rows_are_asked_and_go_to_the_piece_that_holds_their_answer(tmp_path: Path) -> None:
    rows = [
        {"context": note(name, n), "question": f"Who keeps the key of {name}town?", "answers": [name]}
        for n, name in enumerate(NAMES, 3)
    ]
    long = " ".join(note(name, n) for n, name in enumerate(NAMES, 40))
    rows.append({"context": long, "question": "Who keeps the key under stone 44?", "answers": ["Rosa"]})
    rows.append({"context": long, "question": "What is the mood?", "answers": ["gloomy"]})
    corpus = read_corpus(write_rows(tmp_path / "rows.jsonl", rows))
    found = {
        question.text: item
        for split in (corpus.train, corpus.plans, corpus.held_out)
        for item in split
        for question in item.questions
    }
    assert len(found) == 13
    piece = found["Who keeps the key under stone 44?"].document
    assert len(piece) <= MOST and "by Rosa under the stone number 44" in piece
    assert corpus.left_out["questions whose answer is no part of a document of over 800 characters"] == 1


def test_rows_without_questions_are_texts(tmp_path: Path) -> None:
    rows = [{"context": note(name, n)} for n, name in enumerate(NAMES, 3)]
    corpus = read_corpus(write_rows(tmp_path / "rows.jsonl", rows))
    assert len(corpus.train) == 8 and all(len(item.questions) == 2 for item in corpus.train)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Who?", "answers": ["Ilse"]}, "line 1: field 'context' is missing"),
        ({"context": "A text.", "question": "Who?"}, "line 1: field 'answers' is missing"),
        ({"context": "A text.", "answers": ["Ilse"]}, "line 1: field 'question' is missing"),
        (
            {"context": "A text.", "question": "Who?", "answers": "Ilse"},
            "field 'answers' must be a list of texts",
        ),
        ({"context": "A text.", "question": "Who?", "answers": [" "]}, "the first of which is not blank"),
        (
            {"context": "T.", "question": "Who?", "choices": ["a", "b"], "answer": 0},
            "field 'choices' is of another",
        ),
        ({"instruction": "Say it.", "output": "It."}, "field 'instruction' is of another task"),
    ],
)
def test_a_row_of_another_form_is_refused_by_line_and_field(
    row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadRow, match=message):
        read_corpus(write_rows(tmp_path / "rows.jsonl", [row]))


def test_too_few_documents_are_refused_with_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 5 documents; at least 8 are needed"):
        read_corpus(write_notes(tmp_path / "notes", 5))


def test_what_is_written_is_read_as_training_data(tmp_path: Path) -> None:
    corpus = read_corpus(write_notes(tmp_path / "notes"))
    path = tmp_path / "data" / "train.jsonl"
    write_items(corpus.train, path)
    found = load(str(path), "document")
    assert [(i.document, i.questions) for i in found] == [(i.document, i.questions) for i in corpus.train]


def test_cuts_are_after_sentences_where_there_are_some_and_lose_nothing() -> None:
    text = "One two three four. " * 10 + "word " * 40 + "x" * 150
    parts = cut((text.strip(),), 60)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert max(map(len, parts)) <= 60
    assert parts[0] == "One two three four. One two three four. One two three four."
