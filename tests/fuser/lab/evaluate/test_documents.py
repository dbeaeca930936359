"""Rows over cloud documents: the same answers in any batch and after any stop, and the slices of the service."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fuser.bundle.bundle import Bundle
from fuser.lab.data.load import load
from fuser.lab.evaluate.documents import ANSWER_TOKENS, ROWS, DocumentEvaluation, line_ended
from fuser.lab.evaluate.evaluation import Given, OutOfTime, TimeLimit
from fuser.lab.evaluate.mismatched import mismatched
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.prediction import PredictionLog
from fuser.lab.evaluate.questions import DocumentQuestion, draw
from fuser.lab.evaluate.rows import RowAnswer
from fuser.lab.evaluate.score import first_line
from fuser.receiver import Receiver
from fuser.sharer import Sharer
from fuser.slice_specs import SliceLayout
from kvwire.plan import WHOLE
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from ops.chaos.in_one_process import answer_in_one_process
from tests.fuser.lab.evaluate.asking import ask, texts
from tests.identity import save_identity_bundle

Make = Callable[..., Given]
BATCHED = (
    "receiver",
    "text",
    "excerpt-text",
    "sharer",
    "fused",
    "mismatched",
)


class Short(TimeLimit):
    """Ends at a given check, counted from 1."""

    def __init__(self, checks: int) -> None:
        super().__init__()
        self._left = checks

    def check(self) -> None:
        self._left -= 1
        if not self._left:
            raise OutOfTime


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
        local = answer_in_one_process(sharer, receiver, sections, {"note": document}, kind, 32, ANSWER_TOKENS)
        return first_line(local.text)
    local = answer_in_one_process(sharer, receiver, sections, {"note": document}, kind, 32, 1)
    cut = local.cut
    begun = receiver.begin((place, Section(Role.QUESTION, Visibility.SHARED, text=question.question)))
    intake = begun.prefill(kind).take(SliceLayout.of(cut))
    for segment in local.segments:
        intake.add(segment)
    return first_line("".join(intake.done().generate(ANSWER_TOKENS)))


def test_one_question_at_a_time_gives_what_eight_together_give(
    given: Make, documents: list[DocumentQuestion], tmp_path: Path
) -> None:
    documents = documents[::2]  # of every length, and in another script
    together, alone = (
        texts(ask(DocumentEvaluation(given(batch=batch), documents), tmp_path / str(batch), *BATCHED))
        for batch in (8, 1)
    )
    assert together == alone
    assert len(together) == len(documents) * len(BATCHED)
    assert len({together[row, documents[0].id] for row in BATCHED}) > 4, (
        "rows that differ should say different things"
    )


def test_fused_answers_are_those_of_the_service(
    given: Make, documents: list[DocumentQuestion], pair: tuple[Sharer, Receiver], tmp_path: Path
) -> None:
    documents = documents[::2]
    found = texts(ask(DocumentEvaluation(given(), documents), tmp_path, "fused"))
    expected = {
        ("fused", q.id): served(pair, SliceKind.EXCERPT, q, q.document, q.question) for q in documents
    }
    same = sum(found[at] == expected[at] for at in expected)
    assert same >= len(expected) - 1  # the cache holds features in half precision: a near-tie may tip over


def test_mismatched_answers_are_those_of_the_strangers_slice(
    given: Make, documents: list[DocumentQuestion], pair: tuple[Sharer, Receiver], tmp_path: Path
) -> None:
    documents = documents[::2]
    found = texts(ask(DocumentEvaluation(given(), documents), tmp_path, "mismatched", "fused"))
    others = mismatched(documents)
    expected = [
        served(pair, SliceKind.EXCERPT, q, documents[other].document, documents[other].question)
        for q, other in zip(documents, others, strict=True)
    ]
    same = [found["mismatched", q.id] == text for q, text in zip(documents, expected, strict=True)]
    assert sum(same) >= len(documents) - 1
    assert any(found["mismatched", q.id] != found["fused", q.id] for q in documents)


def test_an_exchanged_answer_is_marked_by_what_the_changed_document_says_and_cut_as_the_service_cuts_it(
    given: Make, documents: list[DocumentQuestion], pair: tuple[Sharer, Receiver], tmp_path: Path
) -> None:
    asked = [q for q in documents if q.other]
    task = DocumentEvaluation(given(), asked)
    found = ask(task, tmp_path, "wrong-binding", "wrong-binding-text", "fused", "text")
    same = changed = 0
    for question in asked:
        other = question.rebound
        assert other.answers == (question.other,) != question.answers
        expected = served(pair, SliceKind.EXCERPT, other, other.document, other.question)
        same += found["wrong-binding", question.id].text == expected
        changed += found["wrong-binding", question.id].text != found["fused", question.id].text
        assert found["wrong-binding", question.id].bytes > 0
    assert len(asked) > 10 and same >= len(asked) - 1 and changed > 1
    batch = task.batch([0])
    said = [RowAnswer(asked[0].other), RowAnswer(f"Not {asked[0].answers[0]}."), RowAnswer("")]
    (right,), (original,), (neither,) = (batch.rebound([one]) for one in said)
    assert right.marks == {"exact_match": 1.0, "f1": 1.0, "contains": 1.0, "original": 0.0}
    assert original.marks is not None and neither.marks is not None
    assert (original.marks["contains"], original.marks["original"]) == (0.0, 1.0)
    assert not any(neither.marks.values())


def test_questions_for_two_facts_are_also_marked_by_their_parts(given: Make) -> None:
    task = DocumentEvaluation(
        given(), draw(load("records:heldout_two", "document", 3, 3, for_training=False), 3, 1)
    )
    one, two = task.questions[0].parts
    assert task.mark(0, f"{two} and {one}").keys() == {"exact_match", "f1", "contains", "both", "parts"}
    assert task.mark(0, f"{two} and {one}")["both"] == 1.0
    assert (task.mark(0, two)["both"], task.mark(0, two)["parts"]) == (0.0, 0.5)
    assert "records:SPLIT" in str(ROWS["wrong-binding"].needs(task)), "no one value answers"


def test_drafted_answers_are_those_of_the_service_and_those_of_a_stranger_are_its(
    given: Make, documents: list[DocumentQuestion], pair: tuple[Sharer, Receiver], tmp_path: Path
) -> None:
    task = DocumentEvaluation(replace(given(), drafts=True), documents)
    found = texts(ask(task, tmp_path, "drafted", "drafted-mismatched", "drafted-text"))
    for name, sources in (("drafted", range(len(documents))), ("drafted-mismatched", mismatched(documents))):
        same = [
            found[name, q.id]
            == served(pair, SliceKind.DRAFT, q, documents[source].document, documents[source].question)
            for q, source in zip(documents, sources, strict=True)
        ]
        assert sum(same) >= len(documents) - 1, name  # as above
    assert {found["drafted", q.id] for q in documents} != {found["drafted-text", q.id] for q in documents}
    assert len(task.transfer.drafted(WHOLE).written(0)) > 0


def test_the_sharers_text_is_its_own_greedy_answer(
    given: Make, documents: list[DocumentQuestion], pair: tuple[Sharer, Receiver], tmp_path: Path
) -> None:
    found = texts(ask(DocumentEvaluation(given(), documents), tmp_path, "sharer"))
    for question in documents:
        sections = (
            Section(Role.DOCUMENT, Visibility.CLOUD, text=question.document),
            Section(Role.QUESTION, Visibility.SHARED, text=question.question),
        )
        said = found["sharer", question.id].rstrip("\ufffd")  # the service leaves half a character out
        assert said == first_line(pair[0].answer(sections, ANSWER_TOKENS))


def test_a_run_in_pieces_gives_what_one_run_gives(
    given: Make, documents: list[DocumentQuestion], tmp_path: Path
) -> None:
    rows, pieces = ("receiver", "sharer", "text", "fused"), given(batch=5)
    whole = texts(ask(DocumentEvaluation(pieces, documents), tmp_path / "whole", *rows))
    stops = 0
    while stops < 100:
        try:
            ask(DocumentEvaluation(pieces, documents), tmp_path / "parts", *rows, deadline=Short(3))
            break
        except OutOfTime:
            stops += 1
    assert 3 < stops < 100
    assert texts(ask(DocumentEvaluation(given(), documents), tmp_path / "parts", *rows)) == whole
    log = PredictionLog(tmp_path / "parts" / "predictions.jsonl")
    assert len(log.predictions) == len(log.path.read_text("utf-8").splitlines()) == len(documents) * len(rows)


def test_what_a_slice_and_a_text_cost_is_counted(
    given: Make, documents: list[DocumentQuestion], tmp_path: Path
) -> None:
    rows = ("receiver", "text", "fused")
    found = ask(DocumentEvaluation(given(), documents), tmp_path, *rows)
    by_id = {q.id: q for q in documents}
    for (row, item), p in found.items():
        if row == "receiver":
            assert p.bytes == 0
        if row == "text":
            assert p.bytes == len(by_id[item].document.encode())
        if row == "fused":
            assert p.bytes == (4 * 24 * 12 if by_id[item].document != "Bay 14." else p.bytes)
            assert 0 < p.bytes <= 4 * 24 * 12


def test_reading_the_documents_counts_for_the_rows_that_need_it_even_from_a_cache(
    given: Make, documents: list[DocumentQuestion], tmp_path: Path
) -> None:
    first, again = (
        ask(DocumentEvaluation(given(), documents), tmp_path / run, "receiver", "fused")
        for run in ("first", "again")
    )
    read = [sum(p.seconds for (row, _), p in found.items() if row == "fused") for found in (first, again)]
    own = sum(p.seconds for (row, _), p in again.items() if row == "receiver")
    assert read[1] > own
    assert math.isclose(read[0], read[1], rel_tol=0.9)


def test_rows_that_cannot_be_run_say_what_they_need(given: Make, documents: list[DocumentQuestion]) -> None:
    def lacks(row: str, task: DocumentEvaluation) -> str:
        return str(ROWS[row].needs(task))

    whole = DocumentEvaluation(given(), documents)
    assert lacks("fused", whole) == "None"
    assert "the key identical" in lacks("identical", whole)
    only = [q for q in documents if q.document == documents[0].document]
    assert "records:SPLIT" in lacks("wrong-binding", whole), "some are of no record"
    assert "two documents" in lacks("mismatched", DocumentEvaluation(given(), only))
    assert "does not answer" in lacks("mismatched", DocumentEvaluation(given(), documents, answerable=False))
    config = given().bundle.config
    fields = {name: getattr(config, name) for name in config.__slots__}
    bare = Bundle(type(config)(**(fields | {"fuse": None, "translate": None})))
    assert "excerpt" in lacks("fused", DocumentEvaluation(given(bundle=bare), documents))


def test_the_same_models_own_slice_of_a_whole_document_reads_as_its_text(
    given: Make, documents: list[DocumentQuestion], tiny_receiver: Path, tmp_path: Path
) -> None:
    identity = Bundle.load(save_identity_bundle(tmp_path / "identity", tiny_receiver))
    same = given(bundle=identity, sharer=Model(str(tiny_receiver)))
    found = texts(ask(DocumentEvaluation(same, documents), tmp_path / "same", "text", "fused", "mismatched"))
    alike = [
        sum(found[row, q.id] == found["text", q.id] for q in documents) for row in ("fused", "mismatched")
    ]
    assert (
        alike[0] >= len(documents) - 2
    )  # half precision in the cache, and where the prompt is cut into tokens
    assert alike[1] <= len(documents) // 4
    task = DocumentEvaluation(given(identical=identity), documents)
    assert texts(ask(task, tmp_path / "identical", "identical")) == {
        ("identical", item): text for (row, item), text in found.items() if row == "fused"
    }


def test_generation_ends_with_the_first_line_that_is_not_empty(tiny_receiver: Path) -> None:
    tokenizer = Model(str(tiny_receiver)).tokenizer
    ended = line_ended(tokenizer)
    for text, whole in (("\n\n", False), ("\n bay 14", False), ("\n bay 14\n", True), ("bay\n14", True)):
        assert ended(tokenizer(text).input_ids) is whole
