"""Hard cases keep the question and its answers, and change only what it is asked over."""

from collections import Counter
from dataclasses import replace

import pytest

from fuser.lab.data.cases import Cases
from fuser.lab.data.document import Item, Question
from fuser.lab.data.load import load

POOL = load("records:heldout", "document", 60, 3, for_training=False)
LIMIT = 4000


def words(text: str) -> int:
    return len(text.split())


def cases(
    *names: str,
    pool: list[Item] = POOL,
    seed: int = 1,
    max_chars: int = LIMIT,
    left_out: Counter[str] | None = None,
) -> Cases:
    return Cases(names, pool, seed, words, max_chars, Counter() if left_out is None else left_out)


def test_an_unanswerable_question_is_over_a_document_without_its_answers_and_names() -> None:
    vary = cases("unanswerable")
    for item in POOL[:20]:
        (varied,) = vary(item)
        assert varied.questions == item.questions
        assert varied.document != item.document
        assert varied.document in {other.document for other in POOL}
        for question in item.questions:
            assert question.answers[0].lower() not in varied.document.lower().split()
    named = Item("n", "Otto keeps it.", (Question("What does Otto keep?", ("a key",)),))
    others = [Item("n", text, ()) for text in ("otto left.", "Here is A KEY.", "Nothing.")]
    assert [v.document for v in cases("unanswerable", pool=others)(named)] == ["Nothing."]


def test_two_documents_stand_in_both_orders() -> None:
    first, last = cases("two")(POOL[0])
    own = POOL[0].document
    assert first.document.startswith(f"{own}\n") and last.document.endswith(f"\n{own}")
    assert first.document.removeprefix(f"{own}\n") == last.document.removesuffix(f"\n{own}")
    assert (first.source, last.source) == (
        "records:heldout, two, its own first",
        "records:heldout, two, its own last",
    )


@pytest.mark.parametrize("tokens", [150, 400])
def test_a_longer_document_holds_the_whole_of_its_own_and_has_nearly_the_tokens_asked_for(
    tokens: int,
) -> None:
    vary = cases(f"long:{tokens}")
    places = []
    for item in POOL[:20]:
        (varied,) = vary(item)
        assert tokens - 40 <= words(varied.document) <= tokens
        assert item.document in varied.document
        others = varied.document.replace(item.document, "").split("\n")
        assert {line for line in others if line} <= {line for o in POOL for line in o.document.split("\n")}
        places.append(varied.document.index(item.document) / len(varied.document))
        for question in item.questions:
            assert varied.document.count(question.answers[0]) == item.document.count(question.answers[0])
    assert min(places) < 0.1 and max(places) > 0.3, "its own document stands in many places"


def test_several_cases_of_one_document_come_together_and_say_which_they_are() -> None:
    found = list(cases("plain", "long:200", "long:300")(POOL[0]))
    assert [item.source for item in found] == [
        "records:heldout",
        "records:heldout, long:200",
        "records:heldout, long:300",
    ]
    assert found[0] == replace(POOL[0], origin=POOL[0].document)
    assert {item.origin for item in found} == {POOL[0].document}


def test_what_cannot_be_made_is_counted_by_its_reason() -> None:
    item = POOL[0]
    asked = len(item.questions)
    left_out: Counter[str] = Counter()
    assert list(cases("unanswerable", pool=[item], left_out=left_out)(item)) == []
    assert list(cases("long:2", "long:99999", left_out=left_out)(item)) == []
    assert list(cases("plain", max_chars=10, left_out=left_out)(item)) == []
    assert left_out == {
        "without another document that does not tell of them": asked,
        "over documents of more than 2 tokens": asked,
        "without enough other documents to make 99999 tokens": asked,
        "over documents of more than 10 characters": asked,
    }


def test_the_seed_alone_decides() -> None:
    same = [list(cases("two", "long:200", seed=5)(item)) for item in POOL[:5]]
    assert same == [list(cases("two", "long:200", seed=5)(item)) for item in POOL[:5]]
    assert same != [list(cases("two", "long:200", seed=6)(item)) for item in POOL[:5]]


@pytest.mark.parametrize("names", [("magic",), ("long:",), ("long:0",), ("unanswerable", "plain"), ()])
def test_cases_that_mean_nothing_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="case"):
        cases(*names)
