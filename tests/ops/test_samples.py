"""The demo's documents: every canary is unique, every answer can be read, no question gives one away."""

import pytest

from ops.demo.samples import filled_up, load_samples


def test_there_are_records_and_longer_notes() -> None:
    lengths = [len(sample.text.split()) for sample in load_samples()]
    assert sum(length < 60 for length in lengths) >= 8
    assert sum(150 <= length <= 400 for length in lengths) >= 3


def test_ids_are_unique() -> None:
    ids = [sample.id for sample in load_samples()]
    assert len(ids) == len(set(ids))


def test_a_canary_stands_once_in_its_document_and_nowhere_else() -> None:
    samples = load_samples()
    for sample in samples:
        assert [other.text.count(sample.canary) for other in samples].count(0) == len(samples) - 1
        assert sample.text.count(sample.canary) == 1
        assert not any(sample.canary in question.text for other in samples for question in other.questions)


def test_every_answer_is_in_its_document_and_in_no_question() -> None:
    for sample in load_samples():
        assert sample.questions
        for question in sample.questions:
            assert any(answer in sample.text for answer in question.answers)
            assert not any(answer.casefold() in question.text.casefold() for answer in question.answers)


def words(text: str) -> int:
    return len(text.split())


def test_documents_are_filled_up_with_paragraphs_of_others_behind_their_own_text() -> None:
    samples = load_samples()
    paragraphs = {part for sample in samples for part in sample.text.split("\n\n")}
    filled = filled_up(samples, 380, words)
    for sample, longer in zip(samples, filled, strict=True):
        assert (longer.id, longer.questions) == (sample.id, sample.questions)
        own, *others = longer.text.removeprefix(sample.text).split("\n\n")
        assert longer.text.startswith(sample.text) and own == "" and len(others) == len(set(others)) > 0
        assert set(others) <= paragraphs
        assert abs(words(longer.text) - 380) <= max(map(words, others)) / 2 + 1
        assert [other.text.count(sample.canary) for other in filled] == [int(o is longer) for o in filled]
    assert (
        len({longer.text.removeprefix(sample.text) for sample, longer in zip(samples, filled, strict=True)})
        > 3
    )


def test_documents_stay_as_they_are_where_they_are_long_enough() -> None:
    samples = load_samples()
    assert filled_up(samples, 0, words) == samples == filled_up(samples, 20, words)


def test_documents_that_the_others_cannot_fill_are_refused() -> None:
    with pytest.raises(ValueError, match="tokens 5000: the texts of the demo fill record-brandvik up to"):
        filled_up(load_samples(), 5000, words)
