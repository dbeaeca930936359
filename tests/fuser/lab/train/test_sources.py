"""Sources of a run: two splits that share no text, and prompts that both sides hold."""

import json
from pathlib import Path
from typing import Any

import pytest

from fuser.lab.data.document import Item
from fuser.lab.train.config import SourceConfig, TrainConfig
from fuser.lab.train.sources import TrainPrompt, read_sources, text_of
from tests.fuser.lab.train.toy_task import toy_config


def _write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _instructions(path: Path, numbers: range) -> str:
    rows = [{"instruction": f"Say {n}.", "input": "", "output": f"{n}"} for n in numbers]
    return _write(path, rows)


def _config(*sources: SourceConfig) -> TrainConfig:
    return toy_config("unused", sources=sources)


def test_choices_become_prompts_with_their_letter_as_response(tmp_path: Path) -> None:
    row = {"id": "q", "question": "Which box is empty?", "choices": ["oak", "ash", "elm"], "answer": 1}
    rows = [row | {"id": f"{n}", "question": f"Which box is number {n}?"} for n in range(4)]
    source = _write(tmp_path / "choices.jsonl", rows)
    found = read_sources(_config(SourceConfig(source, 10, task="shared")))
    assert {type(item) for item in found.all} == {TrainPrompt}
    first = found.train[0]
    assert isinstance(first, TrainPrompt)
    assert "B. ash" in first.text
    assert first.response == "The correct answer is B."


def test_a_task_without_validation_gives_up_its_last_items(tmp_path: Path) -> None:
    instructions = SourceConfig(_instructions(tmp_path / "i.jsonl", range(40)), 40, task="shared")
    found = read_sources(_config(instructions, SourceConfig("records:train", 30)))
    held = [item for item in found.validation if isinstance(item, TrainPrompt)]
    assert len(held) == 4
    assert len([item for item in found.validation if isinstance(item, Item)]) == 3
    assert not {text_of(item) for item in found.train} & {text_of(item) for item in found.validation}


def test_what_validates_is_not_trained_on(tmp_path: Path) -> None:
    train = SourceConfig(_instructions(tmp_path / "a.jsonl", range(10)), 10, task="shared")
    held = SourceConfig(_instructions(tmp_path / "b.jsonl", range(6, 12)), 10, task="shared", validation=True)
    found = read_sources(_config(train, held))
    assert sorted(text_of(item) for item in found.train) == [f"Say {n}." for n in range(6)]
    assert len(found.validation) == 6


def test_rows_of_another_task_are_refused_with_what_to_do(tmp_path: Path) -> None:
    row = {"id": "1", "context": "The mill is old.", "question": "How old?", "answers": ["old"]}
    source = _write(tmp_path / "documents.jsonl", [row])
    with pytest.raises(ValueError, match='give this source task = "document"'):
        read_sources(_config(SourceConfig(source, 1, task="shared")))


def test_continuations_are_asked_in_training_alone() -> None:
    found = read_sources(_config(SourceConfig("records:train", 30, continuations=2)))
    plain = read_sources(_config(SourceConfig("records:train", 30)))
    assert found.validation == plain.validation
    assert len(found.train) == len(plain.train)
    for more, item in zip(found.train, plain.train, strict=True):
        assert isinstance(more, Item) and isinstance(item, Item)
        assert more.questions[: len(item.questions)] == item.questions
        assert len(more.questions) > len(item.questions)
