"""The short table goes between its two lines, and nowhere else."""

from pathlib import Path
from typing import Any

import pytest

from ops.tables import check_marks, put, short_table

VALUE = {"point": 0.269, "low": 0.223, "high": 0.32}
OWN = VALUE | {"row": "fused", "plan": "raw:m8"}
REPORT: dict[str, Any] = {
    "rows": [
        {
            "row": "fused",
            "plan": "raw:m8",
            "label": "fused, raw:m8",
            "metrics": {"exact_match": VALUE, "f1": VALUE | {"point": 0.374}},
            "bytes_per_question": 8224.0,
        }
    ],
    "differences": {
        "exact_match": {
            "transfer: fused raw:m8 - mismatched raw:m8": OWN,
            "transfer: fused - mismatched": VALUE
            | {"row": "fused", "plan": ""},  # was answered before and is not shown
            "fused raw:m8 - receiver": OWN,
            "gap to text closed: (fused raw:m8 - receiver) / (text - receiver)": OWN,
        }
    },
    "data": {"source": "records:heldout", "questions": 320},
    "bundle": {"sha256": "ab" * 32, "parameters": 9, "sharer": "large@1", "receiver": "small@2"},
    "dtype": "float32",
    "machine": {"cores": 2, "accelerator": None},
    "time": "2026-11-22T09:00:00+00:00",
}


def test_the_table_has_rows_transfer_gaps_and_where_it_is_from() -> None:
    assert short_table(REPORT).splitlines() == [
        "| 320 questions, `records:heldout` | exact match % [95 %] | F1 % | bytes a question |",
        "|---|---|---|---|",
        "| **fused, raw:m8** | 26.9 [22.3, 32.0] | 37.4 | 8,224 |",
        "",
        "Transfer: fused raw:m8 - mismatched raw:m8: 26.9 [22.3, 32.0] points (exact match).",
        "",
        "Gap to text closed: (fused raw:m8 - receiver) / (text - receiver): 26.9 [22.3, 32.0] % (exact match).",
        "",
        "2026-11-22, bundle `abababababab` (9 parameters), large to small, float32, 2 cores, no GPU.",
    ]
    with pytest.raises(ValueError, match="no row has an answer"):
        short_table(REPORT | {"rows": []})


def test_a_metric_that_a_row_does_not_have_is_left_blank() -> None:
    other = REPORT["rows"][0] | {
        "row": "wrong",
        "label": "wrong",
        "metrics": {"exact_match": VALUE, "original": VALUE},
    }
    assert short_table(REPORT | {"rows": [*REPORT["rows"], other]}).splitlines()[2:4] == [
        "| **fused, raw:m8** | 26.9 [22.3, 32.0] | 37.4 |  | 8,224 |",
        "| wrong | 26.9 [22.3, 32.0] |  | 26.9 | 8,224 |",
    ]


def test_only_what_is_between_the_lines_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(
        "Before.\n<!-- kvwire eval -->\nold\n\nold\n<!-- end of kvwire eval -->\nAfter.\n", encoding="utf-8"
    )
    for table in ("| a \\1 |", "| b |\n\nc"):
        put(table, page)
        expected = f"Before.\n<!-- kvwire eval -->\n{table}\n<!-- end of kvwire eval -->\nAfter.\n"
        assert page.read_text(encoding="utf-8") == expected


def test_a_table_with_a_name_goes_to_the_place_of_that_name(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    places = [f"<!-- kvwire eval{n} -->\n<!-- end of kvwire eval -->\n" for n in ("", " squad", " nq")]
    page.write_text("".join(places), encoding="utf-8")
    put("| b |", page, "squad")
    assert page.read_text(encoding="utf-8") == places[0] + (
        "<!-- kvwire eval squad -->\n| b |\n<!-- end of kvwire eval -->\n" + places[2]
    )
    with pytest.raises(ValueError, match="one line <!-- kvwire eval other -->"):
        check_marks(page, "other")


@pytest.mark.parametrize(
    "text", ["", "<!-- kvwire eval -->\n", "<!-- end of kvwire eval -->\n<!-- kvwire eval -->\n"]
)
def test_a_page_without_a_place_is_refused_and_left(tmp_path: Path, text: str) -> None:
    page = tmp_path / "README.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"README.md must have one line <!-- kvwire eval -->"):
        check_marks(page)
    with pytest.raises(ValueError, match=r"README.md must have"):
        put("| b |", page)
    assert page.read_text(encoding="utf-8") == text
