"""The demo's table and the lines below it, for a person."""

from rich.console import Console
from rich.text import Text

from ops.demo.report import DemoRow, Report, Said
from ops.output import Rows

_CELL_CHARS = 70


def show(report: Report, console: Console) -> None:
    """Print the table and what sums it up."""
    console.print(_table(report), crop=False)
    count, right = len(report.rows), report.right
    ratio = report.bf16_bytes / report.bytes_per_position if report.bytes_per_position else 0.0
    for name, told in (
        (
            "right",
            f" of {count}: Receiver alone {right['alone']}, fused {right['fused']}, "
            f"Receiver given the text (text left the cloud) {right['given_text']}",
        ),
        (
            "wire",
            f": {report.bytes_on_wire:,} bytes both ways, "
            f"{report.bytes_on_wire / max(count, 1):,.0f} a question, codec {report.codec}",
        ),
        (
            "bytes per shared token",
            f": {report.bytes_per_position:,.0f}, against {report.bf16_bytes:,} "
            f"for the Sharer's own KV in bf16 ({ratio:.1f} times fewer)",
        ),
        (
            "positions sent",
            f": {report.positions:,}, of which {report.quoted:,} of {report.document_positions:,} document positions "
            "(count each as if its token had been quoted); the others are of answers that the Sharer wrote"
            if report.quoted < report.positions
            else f": {report.positions:,} of {report.document_positions:,} document positions; "
            "count each as if its token had been quoted",
        ),
        ("first token", f": {report.median_first_token_s:.2f} s (median of the fused answers)"),
    ):
        console.print(Text.assemble((name, "bold"), told))
    console.print(_checked(report))
    pair = f"{report.sharer} -> {report.receiver}, bundle {report.bundle[:12]}, {report.seconds:.0f} s"
    console.print(Text(pair, style="dim"))


def _table(report: Report) -> Rows:
    columns = (
        "question",
        "Receiver alone",
        "fused",
        "Receiver given the text",
        "right answer",
        "bytes on the wire",
        "first token, s",
    )
    rows = (
        (
            row.question,
            _said(row.alone),
            _fused(row),
            _said(row.given_text),
            row.right_answer,
            f"{row.bytes_on_wire:,}",
            f"{row.time_to_first_token_s:.2f}",
        )
        for row in report.rows
    )
    return Rows(columns, rows, ruled=True)


def _fused(row: DemoRow) -> Text:
    """What a slice gave; where there was none, why, and no text that could pass for an answer."""
    if row.fused_source == "fused":
        return _said(row.fused)
    return Text(f"no answer: {row.reason}", style="yellow")


def _said(said: Said) -> Text:
    text = said.text if len(said.text) <= _CELL_CHARS else said.text[: _CELL_CHARS - 3] + "..."
    return Text.assemble(("✓", "green") if said.right else ("✗", "red"), f" {text}")


def _checked(report: Report) -> Text:
    wire = report.wire
    scope = f"{wire.messages} messages ({wire.bytes:,} bytes, before encryption) and {wire.segments} segments"
    if wire.passed:
        return Text.assemble(
            ("checked", "bold green"),
            f": no canary, no answer, no run of four words or four token ids of any of "
            f"{wire.documents} documents in {scope}; {wire.needles:,} byte strings looked for, and the same "
            f"search found {wire.questions_seen} of {wire.questions} questions",
        )
    found = (
        f"in {scope} there is {'; '.join(wire.found)}"
        if wire.found
        else f"the search found {wire.questions_seen} of {wire.questions} questions that were sent, "
        f"so it proves nothing ({scope})"
    )
    return Text.assemble(("check FAILED", "bold red"), f": {found}")
