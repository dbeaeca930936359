"""Loading items: three schemas, official layouts, samples, and errors that name file, line and field."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fuser.lab.data.document import Instruction, Item
from fuser.lab.data.load import load
from fuser.lab.data.rows import BadRow
from fuser.prompts.choice import ChoiceItem, choice_prompt

CHOICE = {"id": "c1", "question": "What floats?", "choices": ["lead", "cork", "iron"], "answer": 1}
DOCUMENT = {
    "id": "d1",
    "context": "The key is red.",
    "question": "what colour is the key",
    "answers": ["red"],
}
INSTRUCTION = {"id": "i1", "instruction": "Sort these.", "input": "b a", "output": "a b"}


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    return str(path)


def refused(path: Path, rows: list[Any], task: Any = "auto") -> str:
    with pytest.raises(BadRow) as caught:
        load(write(path, rows), task)
    return str(caught.value)


def test_the_first_row_tells_the_task(tmp_path: Path) -> None:
    for row, kind in ((CHOICE, ChoiceItem), (DOCUMENT, Item), (INSTRUCTION, Instruction)):
        assert isinstance(load(write(tmp_path / "data.jsonl", [row]))[0], kind)


def test_a_choice_keeps_its_fields(tmp_path: Path) -> None:
    row = CHOICE | {"subject": "physics", "explanation": "ignored", "nested": {"also": ["ignored"]}}
    assert load(write(tmp_path / "data.jsonl", [row]), "choice") == [
        ChoiceItem("c1", "What floats?", ("lead", "cork", "iron"), 1, "physics")
    ]


def test_questions_over_one_document_come_together(tmp_path: Path) -> None:
    other = DOCUMENT | {"id": "d2", "context": "A lamp.", "question": "Is it lit?"}
    again = DOCUMENT | {"id": "d3", "question": "Is it blue?", "answers": ["no", "it is not"]}
    first, second = load(write(tmp_path / "data.jsonl", [DOCUMENT, other, again]), "document")
    assert [q.text for q in first.questions] == ["What colour is the key?", "Is it blue?"]
    assert first.questions[1].answers == ("no", "it is not")
    assert second.document == "A lamp."


def test_an_instruction_has_its_input_after_a_blank_line(tmp_path: Path) -> None:
    rows = [INSTRUCTION, {"instruction": "Say hello.", "output": "Hello."}]
    assert load(write(tmp_path / "data.jsonl", rows), "instruction") == [
        Instruction("i1", "Sort these.\n\nb a", "a b"),
        Instruction("2", "Say hello.", "Hello."),
    ]


def test_gzip_is_told_by_its_content_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    text = f"\ufeff{json.dumps(CHOICE)}\n\n   \n{json.dumps(CHOICE | {'id': None})}"
    path = tmp_path / "misnamed.txt"
    path.write_bytes(gzip.compress(text.encode()))
    assert [item.id for item in load(str(path), "choice")] == ["c1", "2"]


def test_a_null_scored_answer_drops_the_row_and_another_replaces_the_answer(tmp_path: Path) -> None:
    rows = [CHOICE | {"id": str(n), "question": f"Q{n}?", "scored_answer": n or None} for n in range(3)]
    left_out: Counter[str] = Counter()
    found = load(write(tmp_path / "data.jsonl", rows), "choice", left_out=left_out)
    assert [(item.id, item.answer) for item in found] == [("1", 1), ("2", 2)]
    assert left_out == {"without a right answer": 1}


def test_a_choice_over_a_text_is_asked_with_it(tmp_path: Path) -> None:
    (item,) = load(write(tmp_path / "data.jsonl", [CHOICE | {"context": "Cork is light.\n"}]), "choice")
    assert "\n\nCork is light.\n\nWhat floats?\n\nChoices:\n" in choice_prompt(item)


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("who wrote it", "Who wrote it?"),
        ("Who wrote it? ", "Who wrote it?"),
        ("who wrote it ( both names )", "Who wrote it ( both names )?"),
        ("Name the writer.", "Name the writer."),
        ("谁写的？", "谁写的？"),
    ],
)
def test_a_question_ends_in_a_mark(tmp_path: Path, written: str, asked: str) -> None:
    (item,) = load(write(tmp_path / "data.jsonl", [DOCUMENT | {"question": written}]), "document")
    assert item.questions[0].text == asked


def test_half_a_surrogate_pair_is_refused_and_a_whole_one_is_text(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(CHOICE | {"question": "A \U0001f511?"}) + "\n", encoding="utf-8")
    assert load(str(path), "choice")[0].question == "A \U0001f511?"
    path.write_text(json.dumps(CHOICE | {"question": "A \udd11?"}) + "\n", encoding="utf-8")
    with pytest.raises(BadRow, match="line 1: half of a surrogate pair"):
        load(str(path), "choice")


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"}, 1),
        ({"question": None, "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}, 0),
        ({"A": "a", "B": "b", "C": "c", "D": "d", "answer": "C"}, 2),
        ({"choices": ["a", "b"], "answer": 0, "error_type": "wrong_groundtruth", "correct_answer": "1"}, 1),
        ({"choices": ["a", "b"], "answer": 0, "error_type": "Wrong Groundtruth", "correct_answer": "b"}, 1),
        ({"choices": ["a", "b"], "answer": 0, "error_type": "ok", "correct_answer": None}, 0),
        ({"choices": ["a", "b"], "answer": 0, "error_type": "expert", "correct_answer": "1"}, None),
        (
            {"choices": ["a", "b"], "answer": 0, "error_type": "wrong_groundtruth", "correct_answer": "?"},
            None,
        ),
        (
            {"choices": ["a", "b"], "answer": 0, "error_type": "wrong_groundtruth", "correct_answer": "²"},
            None,
        ),
    ],
)
def test_official_choice_layouts_are_understood(
    tmp_path: Path, row: dict[str, Any], answer: int | None
) -> None:
    asked = {"question": "Which?"} | row
    if asked["question"] is None:
        asked = {k: v for k, v in asked.items() if k != "question"} | {"question_stem": "Which?"}
    rows = [asked, CHOICE]
    found = load(write(tmp_path / "data.jsonl", rows), "choice")
    assert [item.answer for item in found] == ([] if answer is None else [answer]) + [1]


@pytest.mark.parametrize(
    "row",
    [
        {
            "context": "The key is red.",
            "question": "Colour?",
            "answers": {"text": ["red"], "answer_start": [11]},
        },
        {"question": "Colour?", "sub_context": "The key is red.", "sub_answer": ["red"], "org_context": "x"},
    ],
)
def test_official_document_layouts_are_understood(tmp_path: Path, row: dict[str, Any]) -> None:
    item = load(write(tmp_path / "data.jsonl", [row]), "document")[0]
    assert (item.document, item.questions[0].answers) == ("The key is red.", ("red",))


@pytest.mark.parametrize(
    ("task", "change", "field"),
    [
        ("choice", {"answer": "B"}, "answer"),
        ("choice", {"answer": True}, "answer"),
        ("choice", {"answer": 1.0}, "answer"),
        ("choice", {"answer": -1}, "answer"),
        ("choice", {"answer": 3}, "answer"),
        ("choice", {"answer": None}, "answer"),
        ("choice", {"scored_answer": 9}, "scored_answer"),
        ("choice", {"choices": ["one"], "answer": 0}, "choices"),
        ("choice", {"choices": "lead, cork"}, "choices"),
        ("choice", {"choices": ["lead", 7]}, "choices"),
        ("choice", {"choices": [str(n) for n in range(11)]}, "choices"),
        ("choice", {"question": 7}, "question"),
        ("choice", {"question": "  "}, "question"),
        ("choice", {"id": ["c"]}, "id"),
        ("choice", {"subject": 3}, "subject"),
        ("document", {"answers": []}, "answers"),
        ("document", {"answers": "red"}, "answers"),
        ("document", {"context": None}, "context"),
        ("instruction", {"output": 3}, "output"),
        ("instruction", {"input": ["b"]}, "input"),
    ],
)
def test_a_wrong_field_is_refused_by_file_line_and_name(
    tmp_path: Path, task: str, change: dict[str, Any], field: str
) -> None:
    good = {"choice": CHOICE, "document": DOCUMENT, "instruction": INSTRUCTION}[task]
    path = tmp_path / "data.jsonl"
    message = refused(path, [good, good | {"id": "second"} | change], task)
    assert str(path) in message and "line 2" in message and f"'{field}'" in message


def test_an_id_a_second_time_is_refused(tmp_path: Path) -> None:
    assert "'c1' a second time" in refused(tmp_path / "data.jsonl", [CHOICE, CHOICE])


@pytest.mark.parametrize("line", [b"[1]", b"{", b"\xff\xfe{}", b'"text"', b"[" * 100_000])
def test_a_line_that_is_no_object_is_refused_by_its_number(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(json.dumps(CHOICE).encode() + b"\n\n" + line)
    with pytest.raises(BadRow, match="line 3"):
        load(str(path))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(json.dumps(CHOICE).encode() * 1000)[:60])
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    for path in (cut, empty, tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(BadRow) as caught:
            load(str(path))
        assert str(path) in str(caught.value)


def test_a_row_of_no_task_is_refused_by_its_fields(tmp_path: Path) -> None:
    assert "id, text" in refused(tmp_path / "data.jsonl", [{"id": "f1", "text": "a fact"}])


def test_a_limit_takes_a_uniform_sample_that_the_seed_fixes(tmp_path: Path) -> None:
    source = write(tmp_path / "d.jsonl", [CHOICE | {"id": str(n), "question": f"Q{n}?"} for n in range(200)])
    taken = [item.id for item in load(source, "choice", 50, 7)]
    assert taken == [item.id for item in load(source, "choice", 50, 7)]
    assert taken[:20] == [item.id for item in load(source, "choice", 20, 7)]
    assert taken != [item.id for item in load(source, "choice", 50, 8)]
    assert len(set(taken)) == 50 and 60 < sum(map(int, taken)) / 50 < 140
    hits = Counter(item.id for seed in range(40) for item in load(source, "choice", 10, seed))
    assert max(hits.values()) <= 9  # 400 draws of 200 items: 2 each on average


def test_a_limit_counts_documents(tmp_path: Path) -> None:
    rows = [DOCUMENT | {"context": f"Key {n // 2}.", "question": f"Q{n}?"} for n in range(20)]
    found = load(write(tmp_path / "d.jsonl", rows), "document", 3)
    assert [len(item.questions) for item in found] == [2, 2, 2]


def test_long_documents_are_left_out(tmp_path: Path) -> None:
    rows = [DOCUMENT, DOCUMENT | {"context": "The key is red. " * 100}]
    source = write(tmp_path / "d.jsonl", rows)
    assert len(load(source, "document")) == 1
    assert len(load(source, "document", max_document_chars=5000)) == 2


def test_records_are_documents() -> None:
    items = load("records:train", "document", 3, 5)
    assert len(items) == 3 and all(item.source == "records:train" for item in items)
    with pytest.raises(ValueError, match="not choice"):
        load("records:train", "choice", 3)


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        load("records:train", "document", 0)


def test_the_prompt_lists_every_choice_and_ends_where_the_answer_begins() -> None:
    item = ChoiceItem("1", "What floats?", ("lead", "cork", "iron", "gold", "tin"), 1)
    text = choice_prompt(item)
    assert "\nB. cork\n" in text and "\nE. tin\n" in text and "A, B, C, D or E." in text
    assert text.endswith("The correct answer is")
