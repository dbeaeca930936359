"""Questions that any text answers."""

from fuser.lab.data.cloze import with_continuations
from fuser.lab.data.document import Item, Question

TEXT = (
    "The ledger lies in the cedar box under the bench of the boat house. Ilse wrote it in ink and closed it "
    "before the tide came in. Nobody has opened the box since then, or so the warden says."
)
ITEM = Item("notes", TEXT, (Question("Who wrote it?", ("Ilse",)),))


def test_a_continuation_asks_for_the_words_that_stand_after_its_quotation() -> None:
    own, *added = with_continuations(ITEM, 4).questions
    assert own == ITEM.questions[0]
    assert len({question.text for question in added}) == 4
    for question in added:
        quoted = question.text.split('"')[1]
        assert len(quoted.split()) == 4
        assert TEXT.count(quoted) == 1
        after = TEXT.split(quoted)[1]
        assert after.lstrip(" \"'.,;:!?()[]").startswith(question.answers[0])
        assert len(question.answers[0].split()) == 3


def test_continuations_of_a_document_are_always_the_same() -> None:
    assert with_continuations(ITEM, 3) == with_continuations(ITEM, 3)
    assert with_continuations(ITEM, 2).questions == with_continuations(ITEM, 3).questions[:3]


def test_a_short_text_has_fewer_continuations_and_none_has_none() -> None:
    for text in ("", "One two three four five six.", "a a a a a a a a a a a a"):
        item = Item("notes", text, ITEM.questions)
        assert with_continuations(item, 2) == item
    assert with_continuations(ITEM, 0) == ITEM
    assert len(with_continuations(ITEM, 1000).questions) < 40


def test_no_continuation_crosses_the_end_of_a_sentence() -> None:
    for question in with_continuations(ITEM, 1000).questions[1:]:
        assert not any(mark in question.text.rstrip("?") for mark in ".!?")
        assert "." not in question.answers[0]
