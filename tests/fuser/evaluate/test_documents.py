"""Rows over cloud documents: the same answers in any batch and after any stop, and the slices of the service."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.progress import Progress

from fuser.bundle import Bundle
from fuser.evaluate.deadline import Deadline, OutOfTime
from fuser.evaluate.documents import DocumentEvaluation
from fuser.evaluate.line import first_line
from fuser.evaluate.mismatched import mismatched
from fuser.evaluate.models import Model
from fuser.evaluate.prediction import Prediction, PredictionLog
from fuser.evaluate.questions import DocumentQuestion
from fuser.evaluate.relay import ANSWER_TOKENS
from fuser.evaluate.rows import Row
from fuser.layout import SliceLayout
from fuser.receiver import Receiver
from fuser.sharer import Sharer
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from tests.identity import save_identity_bundle
from tests.in_one_process import answer_in_one_process

Make = Callable[..., DocumentEvaluation]
BATCHED = (
    "receiver",
    "text",
    "excerpt-text",
    "sharer",
    "relay-fair",
    "routing",
    "fused",
    "mismatched",
)


def answers(evaluation: DocumentEvaluation, *rows: str) -> dict[tuple[str, str], Prediction]:
    """Run to the end; (row, item) -> answer."""
    evaluation.run([Row(row) for row in rows], Progress(disable=True), Deadline())
    return {(p.row, p.item): p for p in evaluation.log.predictions}


class Short(Deadline):
    """Ends at its so manieth check."""

    def __init__(self, checks: int) -> None:
        super().__init__()
        self._left = checks

    def check(self) -> None:
        self._left -= 1
        if not self._left:
            raise OutOfTime


def texts(found: dict[tuple[str, str], Prediction]) -> dict[tuple[str, str], str]:
    return {at: p.text for at, p in found.items()}


@pytest.fixture(scope="module")
def pair(tiny_sharer: Path, tiny_receiver: Path, tiny_bundle: Path) -> tuple[Sharer, Receiver]:
    sharer, receiver, bundle = Model(str(tiny_sharer)), Model(str(tiny_receiver)), Bundle.load(tiny_bundle)
    return Sharer(sharer.network, sharer.tokenizer, bundle), Receiver(
        receiver.network, receiver.tokenizer, bundle
    )


def served(
    pair: tuple[Sharer, Receiver], kind: SliceKind, question: DocumentQuestion, document: str, asked: str
) -> str:
    """What the service would answer, with the slice of a document cut for the question `asked`."""
    sharer, receiver = pair
    place = Section(Role.DOCUMENT, Visibility.CLOUD, document_id="note")
    sections = (place, Section(Role.QUESTION, Visibility.SHARED, text=asked))
    if asked == question.question:
        local = answer_in_one_process(sharer, receiver, sections, {"note": document}, kind, 12, ANSWER_TOKENS)
        return first_line(local.text)
    local = answer_in_one_process(sharer, receiver, sections, {"note": document}, kind, 12, 1)
    cut = local.cut
    begun = receiver.begin((place, Section(Role.QUESTION, Visibility.SHARED, text=question.question)))
    intake = begun.prefill(kind).take(SliceLayout.of(cut))
    for segment in local.segments:
        intake.add(segment)
    return first_line("".join(intake.done().generate(ANSWER_TOKENS)))


def test_one_question_at_a_time_gives_what_sixteen_together_give(
    evaluation: Make, documents: list[DocumentQuestion]
) -> None:
    together = texts(answers(evaluation("many", 16), *BATCHED))
    alone = texts(answers(evaluation("one", 1), *BATCHED))
    assert together == alone
    assert len(together) == len(documents) * len(BATCHED)
    assert len({together[row, documents[0].id] for row in BATCHED}) > 4, (
        "rows that differ should say different things"
    )


def test_fused_answers_are_those_of_the_service(
    evaluation: Make, documents: list[DocumentQuestion], pair: tuple[Sharer, Receiver]
) -> None:
    found = texts(answers(evaluation(), "fused"))
    expected = {
        ("fused", q.id): served(pair, SliceKind.EXCERPT, q, q.document, q.question) for q in documents
    }
    same = sum(found[at] == expected[at] for at in expected)
    assert same >= len(expected) - 1  # the cache holds features in half precision: a near-tie may tip over


def test_mismatched_answers_are_those_of_the_strangers_slice(
    evaluation: Make, documents: list[DocumentQuestion], pair: tuple[Sharer, Receiver]
) -> None:
    found = texts(answers(evaluation(), "mismatched", "fused"))
    others = mismatched(documents)
    expected = [
        served(pair, SliceKind.EXCERPT, q, documents[other].document, documents[other].question)
        for q, other in zip(documents, others, strict=True)
    ]
    same = [found["mismatched", q.id] == text for q, text in zip(documents, expected, strict=True)]
    assert sum(same) >= len(documents) - 1
    assert any(found["mismatched", q.id] != found["fused", q.id] for q in documents)


def test_the_sharers_text_is_its_own_greedy_answer(
    evaluation: Make, documents: list[DocumentQuestion], pair: tuple[Sharer, Receiver]
) -> None:
    found = texts(answers(evaluation(), "sharer"))
    for question in documents:
        sections = (
            Section(Role.DOCUMENT, Visibility.CLOUD, text=question.document),
            Section(Role.QUESTION, Visibility.SHARED, text=question.question),
        )
        assert found["sharer", question.id] == first_line("".join(pair[0].answer(sections, ANSWER_TOKENS)))


def test_a_run_in_pieces_gives_what_one_run_gives(
    evaluation: Make, documents: list[DocumentQuestion]
) -> None:
    rows = ("receiver", "sharer", "relay-fair", "fused")
    whole = texts(answers(evaluation("whole"), *rows))
    stops = 0
    while stops < 100:
        try:
            evaluation("pieces", 5).run([Row(row) for row in rows], Progress(disable=True), Short(3))
            break
        except OutOfTime:
            stops += 1
    assert 3 < stops < 100
    pieces = evaluation("pieces")
    assert texts(answers(pieces, *rows)) == whole
    assert len(pieces.log.predictions) == len(documents) * len(rows)


def test_what_a_slice_and_a_text_cost_is_counted(evaluation: Make, documents: list[DocumentQuestion]) -> None:
    found = answers(evaluation(), "receiver", "text", "fused", "relay-fair", "sharer", "routing")
    by_id = {q.id: q for q in documents}
    for (row, item), p in found.items():
        if row == "receiver":
            assert p.bytes == 0
        if row == "text":
            assert p.bytes == len(by_id[item].document.encode())
        if row == "fused":
            assert p.bytes == (4 * 24 * 12 if by_id[item].document != "Bay 14." else p.bytes)
            assert 0 < p.bytes <= 4 * 24 * 12
        if row == "relay-fair":
            assert p.bytes == len(found["sharer", item].text.encode())
            assert p.seconds > found["sharer", item].seconds
        if row == "routing":
            assert p.bytes in (0, found["sharer", item].bytes)


def test_reading_the_documents_counts_for_the_rows_that_need_it_even_from_a_cache(evaluation: Make) -> None:
    first = answers(evaluation("first"), "receiver", "fused")
    again = answers(evaluation("again"), "receiver", "fused")
    read = [sum(p.seconds for (row, _), p in found.items() if row == "fused") for found in (first, again)]
    own = sum(p.seconds for (row, _), p in again.items() if row == "receiver")
    assert read[1] > own
    assert math.isclose(read[0], read[1], rel_tol=0.9)


def test_rows_that_cannot_be_run_say_what_they_need(
    evaluation: Make, documents: list[DocumentQuestion]
) -> None:
    made = evaluation()
    assert made.missing("fused") is None
    assert "--identical" in str(made.missing("identical"))
    only = [q for q in documents if q.document == documents[0].document]
    assert "two documents" in str(evaluation(questions=only).missing("mismatched"))
    config = made.bundle.config
    bare = Bundle(
        type(config)(
            **{
                **{f: getattr(config, f) for f in config.__slots__},
                "fuse": None,
                "translate": None,
            }
        )
    )
    assert "excerpt" in str(evaluation(bundle=bare).missing("fused"))
    with pytest.raises(ValueError, match=r"unknown row 'magic'; .*receiver, text"):
        made.missing("magic")


def test_the_same_models_own_slice_of_a_whole_document_reads_as_its_text(
    evaluation: Make, documents: list[DocumentQuestion], tiny_receiver: Path, tmp_path: Path
) -> None:
    identity = Bundle.load(save_identity_bundle(tmp_path / "identity", tiny_receiver))
    model = Model(str(tiny_receiver))
    log = PredictionLog(tmp_path / "same" / "predictions.jsonl")
    same = DocumentEvaluation(identity, model, model, documents, log, tmp_path / "read")
    found = texts(answers(same, "text", "fused", "mismatched"))
    alike = [
        sum(found[row, q.id] == found["text", q.id] for q in documents) for row in ("fused", "mismatched")
    ]
    assert (
        alike[0] >= len(documents) - 2
    )  # half precision in the cache, and where the prompt is cut into tokens
    assert alike[1] <= len(documents) // 4
    made = evaluation(identical=identity)
    assert texts(answers(made, "identical")) == {
        ("identical", item): text for (row, item), text in found.items() if row == "fused"
    }
