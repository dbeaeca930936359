"""Generated records: deterministic, answerable, and divided so that held-out words never reach training."""

import hashlib
import re
import time
from collections import Counter
from itertools import islice

import pytest

from fuser.lab.data.records.attributes import ATTRIBUTES, Attribute
from fuser.lab.data.records.exchange import exchanged
from fuser.lab.data.records.generate import SPLITS, TRAINING, TWO, WORDS, Example, Record, generate
from fuser.lab.data.records.values import COMPOSED, GENERATED
from fuser.lab.data.records.words import CLOSED, COINED_LISTS, FILLERS, LISTS, SHARED_LISTS, half, is_heldout

COUNT = 2000


@pytest.fixture(scope="module")
def records() -> dict[str, list[Record]]:
    return {split: list(generate(1, COUNT, split)) for split in SPLITS}


def examples(records: list[Record]) -> list[Example]:
    return [example for record in records for example in record.examples]


def attribute_of(example: Example) -> Attribute:
    return next(a for a in ATTRIBUTES if f"{a.domain}.{a.name}" == example.attribute)


def as_pattern(template: str) -> re.Pattern[str]:
    """A regular expression for what a phrasing may have become."""
    parts = re.split(r"\{[^}]*\}", template)
    return re.compile("[^.:;\\n]{1,60}?".join(re.escape(part) for part in parts), re.IGNORECASE)


def test_the_same_seed_gives_the_same_records() -> None:
    for split in SPLITS:
        assert list(generate(7, 50, split)) == list(generate(7, 50, split))
        assert list(generate(7, 50, split)) != list(generate(8, 50, split))


def test_the_records_of_a_seed_never_change() -> None:
    """What was trained and measured on them can be made again."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for record in generate(1, 40, split):
            for e in record.examples:
                digest.update(repr((e.document, e.question, e.answer, e.attribute, e.split)).encode())
    assert digest.hexdigest() == "8d680ba2ad8fe0092a9ad4e7d6fd32bee40b1e0fa819e380d551dbf0fc350b73"


def test_fewer_records_are_the_first_of_more() -> None:
    assert list(generate(3, 20, "train")) == list(islice(generate(3, 200, "train"), 20))


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown split"):
        next(generate(1, 1, "test"))


def test_every_answer_is_in_its_document_exactly_once(records: dict[str, list[Record]]) -> None:
    for split in SPLITS:
        for example in examples(records[split]):
            assert example.document.count(example.answer) == 1
            assert 1 <= len(example.answer.split()) <= 5
            assert example.split == split


def test_every_answer_can_be_exchanged_for_another_value_which_its_document_then_has_in_its_place(
    records: dict[str, list[Record]],
) -> None:
    for split in SPLITS:
        found = examples(records[split])
        stated = 0
        for example in found:
            document, other = example.document, example.other
            sibling = exchanged(document, example.answer, other)
            held = other in document
            stated += held
            assert other != example.answer and (sibling.count(other), sibling.count(example.answer)) == (
                1,
                held,
            )
            values = rf"(an? )?({re.escape(example.answer)}|{re.escape(other)})"
            bare = [re.sub(values, "", text, flags=re.IGNORECASE) for text in (document, sibling)]
            assert bare[0] == bare[1], "nothing else changes"
        assert 0.25 < stated / len(found) < 0.7


def test_an_exchanged_value_takes_its_article_and_is_no_part_of_a_word() -> None:
    said = exchanged("An owl and 12 of 1912 saw a hen's egg; 7 went.", "owl", "hen")
    assert said == "A hen and 12 of 1912 saw an owl's egg; 7 went."
    assert exchanged("12 of 1912 and 7", "12", "7") == "7 of 1912 and 12"


def test_questions_for_two_facts_are_answered_by_two_parts_of_the_document_in_their_order() -> None:
    records = list(generate(1, COUNT, TWO))
    assert records == list(generate(1, COUNT, TWO)) and TWO not in TRAINING
    apart = []
    for record in records:
        assert 1 <= len({frozenset(e.parts) for e in record.examples}) == len(record.examples) <= 2
        for example in record.examples:
            one, two = example.parts
            assert example.answer == f"{one}, {two}" and example.split == TWO
            assert record.document.count(one) == record.document.count(two) == 1
            assert example.question.count("?") == 1 and example.question.endswith("?")
            assert ", and " in example.question and " and " in example.attribute
            apart.append(abs(record.document.index(one) - record.document.index(two)))
    assert sum(each > 60 for each in apart) > len(apart) / 2


def test_documents_differ_and_have_the_promised_size(records: dict[str, list[Record]]) -> None:
    for split in SPLITS:
        documents = [record.document for record in records[split]]
        assert len(set(documents)) == COUNT
        assert all(WORDS[0] <= len(document.split()) <= WORDS[1] for document in documents)
        assert not any(re.search(r"[{}]|  +\w+  |\.\.", document) for document in documents)


def test_every_record_asks_two_to_four_different_questions(records: dict[str, list[Record]]) -> None:
    for split in SPLITS:
        for record in records[split]:
            assert 2 <= len({(example.question, example.answer) for example in record.examples}) <= 4
            assert all(
                example.question.endswith("?") and "{" not in example.question for example in record.examples
            )


def test_attributes_are_many_and_varied() -> None:
    assert len(ATTRIBUTES) >= 60
    assert len({(attribute.domain, attribute.name) for attribute in ATTRIBUTES}) == len(ATTRIBUTES)
    assert 0.1 <= sum(attribute.heldout for attribute in ATTRIBUTES) / len(ATTRIBUTES) <= 0.2
    kinds = {*LISTS, *GENERATED, *COMPOSED}
    for attribute in ATTRIBUTES:
        statements = {*attribute.statements, *attribute.heldout_statements}
        questions = {*attribute.questions, *attribute.heldout_questions}
        assert len(statements) >= 6 and len(questions) >= 5 and attribute.kind in kinds
        assert all(
            text.count("{v}") + text.lower().count("{av}") == 1 and text.endswith(".") for text in statements
        )
        assert all(re.search(r"\{[EOP]\}|\{N('s)?\}", text) for text in statements)
        assert all(re.search(r"\{N('s)?\}", text) and text.endswith("?") for text in questions)
        slots = {slot for text in statements | questions for slot in re.findall(r"\{[^}]*\}", text)}
        assert slots <= {"{E}", "{O}", "{P}", "{N}", "{N's}", "{v}", "{av}", "{Av}"}
    assert len(set(FILLERS)) >= 80


def test_lists_are_long_without_repeats_and_a_fifth_is_held_out() -> None:
    assert len(LISTS["woman"]) + len(LISTS["man"]) >= 200
    assert len(LISTS["last"]) >= 300 and len(LISTS["place"]) >= 150
    for name, words in LISTS.items():
        assert len(set(words)) == len(words), name
        if name not in CLOSED | SHARED_LISTS:
            assert half(name, heldout=False) and half(name, heldout=True), name
    everything = [
        word for name, words in LISTS.items() if name not in CLOSED | SHARED_LISTS for word in words
    ]
    assert 0.15 < sum(map(is_heldout, everything)) / len(everything) < 0.25


@pytest.mark.parametrize("split", sorted({*SPLITS} - {*TRAINING}))
def test_no_answer_of_a_held_out_split_is_an_answer_in_training(
    records: dict[str, list[Record]], split: str
) -> None:
    train = {example.answer for name in TRAINING for example in examples(records[name])}
    assert train.isdisjoint(example.answer for example in examples(records[split]))


def test_names_of_people_and_places_are_divided(records: dict[str, list[Record]]) -> None:
    used = {
        split: {
            word for record in records[split] for word in re.findall(r"\b[A-Z][a-zA-Z]+", record.document)
        }
        for split in SPLITS
    }
    shared = {word for name in SHARED_LISTS for noun in LISTS[name] for word in noun.split()}
    for name in ("woman", "man", "last", "place"):
        assert used["train"].isdisjoint(set(half(name, heldout=True)) - shared), name
        for split in ("heldout", "heldout_attributes"):
            assert used[split].isdisjoint(set(half(name, heldout=False)) - shared), name


@pytest.mark.parametrize("split", ["coined", "heldout_coined"])
def test_coined_names_are_most_answers_and_hardly_ever_occur_twice(
    records: dict[str, list[Record]], split: str
) -> None:
    found = examples(records[split])
    names = [example.answer for example in found if attribute_of(example).kind in ("person", *COINED_LISTS)]
    assert len(names) > 0.4 * len(found)
    assert len(set(names)) > 0.9 * len(names)
    known = {word for name in COINED_LISTS for word in LISTS[name]}
    assert sum(any(word in known for word in name.split()) for name in names) < 0.1 * len(names)


def test_whole_attributes_are_held_out(records: dict[str, list[Record]]) -> None:
    for split in SPLITS:
        for example in examples(records[split]):
            attribute = attribute_of(example)
            assert attribute.heldout == (split == "heldout_attributes")
            assert split in TRAINING or not attribute.closed


def test_held_out_questions_never_occur_in_training(records: dict[str, list[Record]]) -> None:
    for example in (example for split in TRAINING for example in examples(records[split])):
        for template in attribute_of(example).heldout_questions:
            assert not as_pattern(template).fullmatch(example.question)


def test_held_out_statements_never_occur_in_training(records: dict[str, list[Record]]) -> None:
    checked = 0
    for example in (example for split in TRAINING for example in examples(records[split])):
        attribute = attribute_of(example)
        for template in attribute.heldout_statements:
            pattern = as_pattern(template.removesuffix("."))
            if not any(
                pattern.search(known) for known in attribute.statements
            ):  # "{E} is {v}" is in most others
                answer = example.answer
                said = (
                    template.replace("{v}", answer)
                    .replace("{av}", f"{{}}{answer}")
                    .replace("{Av}", f"{{}}{answer}")
                )
                assert not as_pattern(said.removesuffix(".")).search(example.document)
                checked += 1
    assert checked > COUNT


def test_held_out_phrasings_do_occur_in_heldout(records: dict[str, list[Record]]) -> None:
    found = examples(records["heldout"])
    hits = sum(
        bool(as_pattern(template).fullmatch(example.question))
        for example in found
        for template in attribute_of(example).heldout_questions
    )
    assert 0.3 < hits / len(found) < 0.7


def test_train_uses_every_attribute_and_none_too_often(records: dict[str, list[Record]]) -> None:
    counts = Counter(example.attribute for example in examples(records["train"]))
    assert len(counts) == sum(not attribute.heldout for attribute in ATTRIBUTES)
    assert max(counts.values()) < 0.05 * counts.total()


def test_half_of_the_documents_state_an_attribute_of_two_entities(records: dict[str, list[Record]]) -> None:
    twice = 0
    for record in records["train"]:
        counts = Counter(example.attribute for example in record.examples)
        twice += max(counts.values()) > 1
    assert twice / COUNT > 0.2, "of the asked facts alone"


def test_most_documents_are_prose_and_answers_are_anywhere(records: dict[str, list[Record]]) -> None:
    prose = [record for record in records["train"] if "\n" not in record.document]
    assert 0.65 < len(prose) / COUNT < 0.85
    places = [example.document.index(example.answer) / len(example.document) for example in examples(prose)]
    for low in (0.0, 0.25, 0.5, 0.75):
        assert sum(low <= place < low + 0.25 for place in places) / len(places) > 0.12


def test_ten_thousand_records_take_seconds() -> None:
    start = time.process_time()
    assert sum(1 for _ in generate(5, 10_000, "train")) == 10_000
    assert time.process_time() - start < 20
