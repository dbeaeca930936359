"""Totals of the demo, and what its table says."""

import dataclasses
import io

from rich.console import Console

from ops.demo.report import DemoRow, Report, Said
from ops.demo.show import show
from ops.demo.wire_check import WireCheck

WIRE = WireCheck(
    messages=8, bytes=4_000, segments=2, documents=3, needles=900, found=(), questions=2, questions_seen=2
)
ROW = DemoRow(
    question="Where is the [key]?",
    document="note",
    right_answer="flowerpot",
    alone=Said.of("At home.", ["flowerpot"]),
    fused=Said.of("Under the flowerpot. :key:", ["flowerpot"]),
    fused_source="fused",
    reason=None,
    kind="excerpt",
    given_text=Said.of("flowerpot", ["flowerpot"]),
    bytes_on_wire=1_500,
    payload_bytes=1_000,
    positions=10,
    document_positions=40,
    time_to_first_token_s=0.5,
)
REPORT = Report("big", "small", "ab" * 32, "int8", 12_288, (ROW, ROW), WIRE, 60.0)


def printed(report: Report) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(report, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_totals_add_up() -> None:
    totals = REPORT.to_dict()["totals"]
    assert totals["right"] == {"alone": 0, "fused": 2, "given_text": 2}
    assert totals["bytes_on_wire"] == 3_000
    assert (totals["positions"], totals["document_positions"]) == (20, 80)
    assert totals["bytes_per_position"] == 100
    assert REPORT.to_dict()["passed"]


def test_an_answer_is_judged() -> None:
    assert Said.of("It is Halvik.", ["Halvik"]) == Said("It is Halvik.", True)
    assert Said.of("Dorne", ["Halvik"]) == Said("Dorne", False)
    assert Said.of("", ["Halvik"]) == Said("", False)


def test_the_table_says_that_text_left_the_cloud_and_what_was_checked() -> None:
    text = printed(REPORT)
    assert "text left the cloud" in text
    assert "Where is the [key]?" in text and "Under the flowerpot. :key:" in text
    assert "no canary" in text
    assert "20 of 80 document positions" in text
    assert "12,288" in text


def test_positions_of_drafts_are_no_documents() -> None:
    report = dataclasses.replace(REPORT, rows=(ROW, dataclasses.replace(ROW, kind="draft")))
    assert "20, of which 10 of 80 document positions" in printed(report)


def test_a_question_without_a_slice_has_no_answer_in_the_fused_column_and_fails_the_demo() -> None:
    guess = Said.of("Dana Whitlock", ["flowerpot"])
    row = dataclasses.replace(ROW, fused=guess, fused_source="receiver-only", reason="UNREACHABLE")
    report = dataclasses.replace(REPORT, rows=(ROW, row))
    assert "no answer: UNREACHABLE" in printed(report) and "Dana Whitlock" not in printed(report)
    assert not report.passed


def test_a_canary_on_the_wire_fails_the_demo() -> None:
    wire = dataclasses.replace(WIRE, found=("canary of note",))
    report = dataclasses.replace(REPORT, wire=wire)
    assert "check FAILED" in printed(report)
    assert "canary of note" in printed(report)
    assert not report.passed


def test_a_search_that_finds_nothing_at_all_proves_nothing() -> None:
    report = dataclasses.replace(REPORT, wire=dataclasses.replace(WIRE, questions_seen=1))
    assert "proves nothing" in printed(report)
    assert not report.passed
