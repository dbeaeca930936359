"""What training must not see: questions of the public evaluation sets."""

import json
from pathlib import Path

import pytest

from fuser.lab.data import overlap
from fuser.lab.data.document import Instruction, Item, Question
from fuser.lab.data.load import load
from fuser.lab.data.overlap import digest, drop_overlaps, held_out, normalise, write_held_out
from fuser.prompts.choice import ChoiceItem

# Items of the public sets, as anyone can find them: ARC-Challenge test, SQuAD dev, C-Eval val, ARC-Challenge validation
# (a question that stands in its training split too).
PUBLIC = (
    "An astronomer observes that a planet rotates faster after a meteorite impact. Which is the most likely effect of "
    "this increase in rotation?",
    "Which NFL team represented the AFC at Super Bowl 50?",
    "下列关于税法基本原则的表述中，不正确的是____。",
    "Screech owls have two color variations-red and grey. What advantage does the grey screech owl have over the red "
    "screech owl in a habitat that is made up of trees with dark-colored bark?",
)


def test_letters_and_digits_of_any_script_are_compared_in_lower_case() -> None:
    assert normalise("  What's 2+2 — Größe? 图书馆____。") == "whats22größe图书馆"


@pytest.mark.parametrize("question", PUBLIC)
def test_questions_of_public_evaluation_sets_are_known(question: str) -> None:
    assert digest(question) in held_out()
    assert digest(question.upper().replace(" ", "  ")) in held_out()
    assert digest(question + " Why?") not in held_out()


def test_a_question_without_letters_is_never_held_out() -> None:
    assert digest("___ ?") == b"" and b"" not in held_out()


def test_training_items_never_ask_an_evaluation_question(tmp_path: Path) -> None:
    planted = [question.replace(" ", " \t") + "?" for question in PUBLIC]
    choices = [{"question": q, "choices": ["a", "b"], "answer": 0} for q in [*planted, "New?"]]
    documents = [
        {"context": "Two.", "question": planted[1], "answers": ["x"]},
        {"context": "Two.", "question": "New?", "answers": ["x"]},
        {"context": "Gone.", "question": planted[0], "answers": ["x"]},
    ]
    instructions = [{"instruction": planted[2], "input": "Choose.", "output": "x"}]
    instructions += [{"instruction": "New?", "input": planted[0], "output": "x"}]
    for name, rows in (("choice", choices), ("document", documents), ("instruction", instructions)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        kept = load(str(path))
        assert len(kept) == 1 < len(load(str(path), for_training=False))
        for item in kept:
            asked = [q.text for q in item.questions] if isinstance(item, Item) else [_asked(item)]
            assert asked and not any(digest(question) in held_out() for question in asked)


def _asked(item: ChoiceItem | Instruction) -> str:
    return item.question if isinstance(item, ChoiceItem) else item.prompt.split("\n\n")[0]


def test_generated_records_ask_nothing_that_is_evaluated() -> None:
    items = load("records:train", "document", 200, for_training=False)
    assert list(drop_overlaps(items, held_out())) == items


def test_a_file_of_evaluation_questions_alone_is_refused_for_training(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"question": PUBLIC[0], "choices": ["a", "b"], "answer": 0}), encoding="utf-8")
    with pytest.raises(ValueError, match="left out of training"):
        load(str(path))


def test_a_document_loses_single_questions() -> None:
    item = Item("s", "text", (Question("Old?", ("a",)), Question("New?", ("b",))))
    assert list(drop_overlaps([item], {digest("old")})) == [Item("s", "text", (Question("New?", ("b",)),))]
    assert list(drop_overlaps([item], {digest("old"), digest("new")})) == []


def test_the_list_is_made_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "test.jsonl", tmp_path / "list.bin"
    rows = [{"question": "One?"}, {"question": "one"}, {"question_stem": "Two?"}, {"question": "___"}]
    source.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    write_held_out(target, [source])
    monkeypatch.setattr(overlap, "_FILE", target)
    assert held_out.__wrapped__() == {digest("One"), digest("Two")}
