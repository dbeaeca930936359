"""Generated documents of everyday kinds: answers that are literal and belong to one fact, and a kept-apart hold-out."""

import hashlib
import re
import time
from collections import Counter
from itertools import islice

import pytest

from fuser.lab.data.load import load
from fuser.lab.data.notes.generate import (
    CHARS,
    NO_ANSWER,
    QUESTIONS,
    SPLITS,
    TRAINING,
    Asked,
    Note,
    generate,
)
from fuser.lab.data.notes.kinds import HELDOUT, KINDS, allowed, groups
from fuser.lab.data.notes.notation import Slot, parse, slots
from fuser.lab.data.notes.values import CLOSED, OWN_LISTS
from fuser.lab.data.notes.writer import TABLES, page
from fuser.lab.data.records.words import LISTS, is_heldout

COUNT = 2000
ANSWERED = ("train", "heldout", "heldout_kinds")
TRAINED = [kind for kind in KINDS if not kind.heldout]


@pytest.fixture(scope="module")
def notes() -> dict[str, list[Note]]:
    return {split: list(generate(1, COUNT, split)) for split in SPLITS}


def asked(notes: list[Note]) -> list[Asked]:
    return [question for note in notes for question in note.questions]


def as_pattern(question: str) -> re.Pattern[str]:
    """A regular expression for what a phrasing may have become; its slots stand for what no question has."""
    parts = [".{1,90}" if isinstance(part, Slot) else re.escape(str(part)) for part in parse(question)]
    return re.compile("".join(parts), re.IGNORECASE)


def test_the_same_seed_gives_the_same_notes() -> None:
    for split in SPLITS:
        assert list(generate(7, 40, split)) == list(generate(7, 40, split))
        assert list(generate(7, 40, split)) != list(generate(8, 40, split))
        assert list(generate(7, 40, split)) == list(islice(generate(7, 60, split), 40))


def test_the_notes_of_a_seed_never_change() -> None:
    """What was trained and measured on them can be made again."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for note in generate(1, 40, split):
            digest.update(repr(note).encode())
    assert digest.hexdigest() == "d0463c390f431f70d3c6ed6deedd45b74e9f56fe38c3cfa61a0ecec495b938c1"


def test_an_unknown_split_and_a_length_that_leaves_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown split"):
        next(generate(1, 1, "test"))
    with pytest.raises(ValueError, match="of 150 to 100 characters"):
        next(generate(1, 1, "train", longest=100))


@pytest.mark.parametrize("split", ANSWERED)
def test_every_answer_is_literal_and_each_occurrence_is_that_fact(
    notes: dict[str, list[Note]], split: str
) -> None:
    once = 0
    for note in notes[split]:
        for question in note.questions:
            assert question.times >= 1 and note.document.count(question.answer) == question.times
            assert question.answer not in question.text
            once += question.times == 1
        answers: dict[str, set[str]] = {}
        for question in note.questions:
            answers.setdefault(question.text, set()).add(question.answer)
        assert all(len(found) == 1 for found in answers.values())
    assert once > 0.95 * len(asked(notes[split]))


@pytest.mark.parametrize("split", SPLITS)
def test_two_to_four_different_questions_are_asked_of_different_documents(
    notes: dict[str, list[Note]], split: str
) -> None:
    assert len({note.document for note in notes[split]}) == COUNT
    for note in notes[split]:
        assert QUESTIONS[0] <= len({question.text for question in note.questions}) <= QUESTIONS[1]
        assert all(re.search(r"[?？]$", question.text) for question in note.questions)


@pytest.mark.parametrize("split", SPLITS)
def test_most_documents_are_short_and_some_are_long(notes: dict[str, list[Note]], split: str) -> None:
    lengths = [len(note.document) for note in notes[split]]
    assert min(lengths) >= CHARS[0] and max(lengths) <= CHARS[1]
    assert sum(length < 700 for length in lengths) > 0.85 * COUNT
    assert max(lengths) > 1000
    assert all(len(note.document) <= 400 for note in generate(2, 100, split, longest=400))


@pytest.mark.parametrize("split", SPLITS)
def test_every_kind_of_the_split_is_there_and_every_field_is_asked_for(
    notes: dict[str, list[Note]], split: str
) -> None:
    kinds = [kind for kind in KINDS if kind.heldout == (split == "heldout_kinds")]
    counts = Counter(note.kind for note in notes[split])
    assert counts.keys() == {kind.name for kind in kinds}
    assert max(counts.values()) < 2 / len(kinds) * COUNT
    if split == "train":
        found = {(note.kind, question.field) for note in notes[split] for question in note.questions}
        fields = {(kind.name, f.name) for kind in kinds for f in kind.fields.values() if f.asked}
        assert fields == found
    assert not any(re.search(r"[{}]{2}|:: |¦|\{\w+:|<\w[^>]*\|", note.document) for note in notes[split])


def test_kinds_are_many_and_their_questions_have_other_wordings() -> None:
    assert len(TRAINED) >= 14 and len(KINDS) - len(TRAINED) == 4
    for kind in KINDS:
        assert len(kind.layouts) >= 2 and len(kind.unstated) >= 5
        for field in kind.fields.values():
            assert not field.asked or len(set(field.asked)) == len(field.asked) >= 3, (kind.name, field.name)
            named = {name for text in field.asked for name in slots(parse(text))}
            assert named <= kind.fields.keys() - {field.name}, (kind.name, field.name)
            rows = {name for name in kind.fields if kind.fields[name].of_row}
            assert not field.of_row or all(rows & {*slots(parse(text))} for text in field.asked), field.asked
        texts = [text for field in kind.fields.values() for text in field.asked] + [*kind.unstated]
        assert not [text for text, count in Counter(texts).items() if count > 1], kind.name
        assert all(text[0].isupper() or text[0] == "{" or not text.isascii() for text in texts)


def test_half_of_every_list_is_never_empty() -> None:
    for name, words in OWN_LISTS.items():
        assert len(set(words)) == len(words), name
        assert {is_heldout(word) for word in words} == {True, False}, name


@pytest.mark.parametrize("split", ["heldout", "heldout_kinds"])
def test_no_answer_of_a_held_out_split_is_an_answer_in_training(
    notes: dict[str, list[Note]], split: str
) -> None:
    train = {question.answer for question in asked(notes["train"])}
    assert train.isdisjoint(question.answer for question in asked(notes[split]))


def test_hardly_any_answer_occurs_twice(notes: dict[str, list[Note]]) -> None:
    answers = Counter(question.answer for question in asked(notes["train"]))
    assert len(answers) > 0.85 * answers.total()
    assert max(answers.values()) < 0.01 * answers.total()


def test_held_out_words_never_reach_training(notes: dict[str, list[Note]]) -> None:
    used = {word for split in TRAINING for note in notes[split] for word in re.findall(r"\w+", note.document)}
    for name in ("given", "family", "place name", "software", "tongue"):
        known = {
            word for words in (LISTS | OWN_LISTS | CLOSED).values() for word in words if not is_heldout(word)
        }
        common = {part for word in known for part in word.split()}
        held = {word for word in OWN_LISTS[name] if is_heldout(word)} - common
        assert held and used.isdisjoint(held), name


def test_held_out_questions_never_occur_in_training(notes: dict[str, list[Note]]) -> None:
    for kind in TRAINED:
        texts = {question.text for split in TRAINING for note in notes[split] if note.kind == kind.name
                 for question in note.questions}  # fmt: skip
        for field in kind.fields.values():
            for held in set(field.asked) & HELDOUT:
                others = [
                    as_pattern(text) for text in allowed(t for f in kind.fields.values() for t in f.asked)
                ]
                said = [text for text in texts if as_pattern(held).fullmatch(text)]
                assert all(any(other.fullmatch(text) for other in others) for text in said), held


def test_held_out_wordings_never_occur_in_training(notes: dict[str, list[Note]]) -> None:
    files = Counter(text for group in groups(TRAINED) for text in set(group))
    checked = 0
    for text in HELDOUT:
        words = text.strip(" ,.:;()")
        plain = len(words) > 9 and not re.search(r"[{}?]", words)
        if plain and not any(words in other for other in files if other not in HELDOUT):
            own = [kind.name for kind in TRAINED if any(text in group for group in groups([kind]))]
            found = [n for split in TRAINING for n in notes[split] if n.kind in own and words in n.document]
            assert not found, text
            checked += 1
    assert checked > 40


def test_held_out_phrasings_do_occur_in_heldout(notes: dict[str, list[Note]]) -> None:
    held = [as_pattern(text) for text in HELDOUT if text.endswith(("?", "？")) and not text.startswith("{")]
    found = asked(notes["heldout"])[:500]
    hits = sum(any(pattern.fullmatch(question.text) for pattern in held) for question in found)
    assert 0.25 < hits / len(found) < 0.75


@pytest.mark.parametrize("split", ["unanswerable", "heldout_unanswerable"])
def test_what_is_not_stated_is_asked_of_documents_that_state_something_alike(
    notes: dict[str, list[Note]], split: str
) -> None:
    found = asked(notes[split])
    assert {(question.answer, question.times) for question in found} == {(NO_ANSWER, 0)}
    assert not any(NO_ANSWER in note.document for note in notes[split])
    known = {text for kind in TRAINED for text in kind.unstated}
    assert sum(question.field != "" for question in found) > 0.6 * len(found)
    assert any(question.text in known for question in found)


def test_a_table_is_written_in_every_form_and_loses_nothing() -> None:
    from random import Random

    rows = ["name ¦ port ¦ path", "fern ¦ 8080 ¦ /srv/a", "iris ¦ 9090 ¦ /srv/b"]
    written = {page(["Hosts:: two", *rows], Random(seed), heldout=seed % 2 == 1) for seed in range(200)}
    assert len(written) > 3 * len(TABLES)
    for text in written:
        assert all(text.count(cell) == 1 for row in rows for cell in row.split(" ¦ "))
        assert text.index("fern") < text.index("8080") < text.index("iris")


def test_a_choice_of_a_key_goes_together_with_the_others_of_it(notes: dict[str, list[Note]]) -> None:
    for note in notes["train"]:
        if note.kind == "invoice":
            signs = {sign for sign in "€$£¥₹₩" if sign in note.document}
            assert len(signs) <= 1, note.document


def test_notes_are_a_source_of_training_and_of_evaluation() -> None:
    items = load("notes:train", limit=50, seed=3)
    assert items == load("notes:train", "document", 80, 3)[:50]
    longer = load("notes:heldout", "document", 300, 3, for_training=False, max_document_chars=5000)
    assert max(len(item.document) for item in longer) > 1000
    unanswered = load("notes:heldout_unanswerable", "document", 5, 3, for_training=False)
    assert all(question.answers == (NO_ANSWER,) for item in unanswered for question in item.questions)
    with pytest.raises(ValueError, match="task document, not choice"):
        load("notes:train", "choice")


def test_a_thousand_notes_take_seconds() -> None:
    """Held-out values are rarer, so they take more draws: about a thousand notes a second, of `train` twice as many."""
    for split in SPLITS:
        start = time.process_time()
        assert sum(1 for _ in generate(5, 1000, split)) == 1000
        assert time.process_time() - start < (2 if split in TRAINING else 5), split
