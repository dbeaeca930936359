"""`kvwire eval` from the command line, on the tiny pair."""

import gzip
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fuser.lab.evaluate.settings import EvaluateConfig, Setup, read_settings
from fuser.lab.profile.grid import Dials, ProfileConfig
from ops.cli import app
from tests.identity import save_identity_bundle

EXAMPLES = Path(__file__).parents[2] / "ops" / "examples"
DOCUMENTS = [
    {
        "id": f"{d}-{q}",
        "context": f"The ledger of house {d} is kept in room {10 + d}. Otto wrote it in {1900 + d}. It is red.",
        "question": ("where is the ledger kept", "When was it written?")[q],
        "answers": ([f"room {10 + d}", str(10 + d)], [str(1900 + d)])[q],
    }
    for d in range(8)
    for q in range(2)
]
CHOICES = [
    {
        "id": f"c{i}",
        "question": f"Which comes after {i}?",
        "choices": [str(i + k) for k in (1, 2, 3, 5)],
        "answer": 0,
    }
    for i in range(6)
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def call(tiny_bundle: Path, tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path) -> Any:
    """Runs `kvwire eval` on a data file; the answers are kept in tmp_path / "work"."""

    def run(data: Path | str, *options: str, fails: bool = False) -> Result:
        pair = {"sharer": tiny_sharer, "receiver": tiny_receiver, "work": tmp_path / "work", "data": data}
        told = [word for key, value in pair.items() for word in ("--set", f"{key}={value}")]
        return CliRunner().invoke(app, ["eval", str(tiny_bundle), *told, *options], catch_exceptions=fails)

    return run


def test_a_report_holds_every_row_with_its_counts_and_where_it_is_from(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "squad.jsonl.gz", DOCUMENTS)
    out, table = tmp_path / "out" / "report.json", tmp_path / "report.md"
    rows = "receiver,text,fused,mismatched,identical"
    done = call(
        data,
        "--set",
        "limit=10",
        "--set",
        "seed=3",
        "--set",
        f"rows={rows}",
        "--json",
        str(out),
        "--markdown",
        str(table),
    )
    assert done.exit_code == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    assert [row["row"] for row in report["rows"]] == ["receiver", "text", "fused", "mismatched"]
    for row in report["rows"]:
        assert (row["questions"], row["complete"]) == (10, True)
        assert {m: v["count"] for m, v in row["metrics"].items()} == {
            "exact_match": 10,
            "f1": 10,
            "contains": 10,
        }
    assert "the key identical" in report["not_run"]["identical"]
    assert (report["data"]["questions"], report["data"]["documents"], report["data"]["seed"]) == (10, 5, 3)
    for hashed in (report["data"]["sha256"], report["data"]["questions_sha256"], report["bundle"]["sha256"]):
        assert len(hashed) == 64
    assert report["complete"] is True
    assert report["machine"]["cores"] >= 1
    assert report["versions"]["torch"]
    assert "| fused |" in table.read_text(encoding="utf-8")
    assert "| fused |" in done.stdout


def test_a_second_call_makes_only_what_is_missing(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    first = json.loads(call(data, "--set", "rows=receiver", "--json", "-").stdout)
    kept = Path(first["predictions"])
    before = kept.read_text(encoding="utf-8")
    second = json.loads(call(data, "--set", "rows=receiver,text", "--json", "-").stdout)
    after = kept.read_text(encoding="utf-8")
    assert second["predictions"] == first["predictions"]
    assert after.startswith(before)
    assert after.count("\n") == 2 * before.count("\n") == 2 * len(DOCUMENTS)
    assert second["rows"][0]["metrics"] == first["rows"][0]["metrics"]


def test_what_was_asked_stands_beside_what_was_said(call: Any, tmp_path: Path) -> None:
    for name, rows, given in (("documents", DOCUMENTS, "answers"), ("choices", CHOICES, "choices")):
        data = write(tmp_path / f"{name}.jsonl", rows)
        report = json.loads(call(data, "--set", "limit=2", "--set", "rows=receiver", "--json", "-").stdout)
        said = [json.loads(line) for line in Path(report["predictions"]).read_text("utf-8").splitlines()]
        asked = Path(report["predictions"]).with_name("questions.jsonl").read_text("utf-8").splitlines()
        found = {one["item"]: one for one in map(json.loads, asked)}
        assert {one["item"] for one in said} == set(found)
        known = {str(row[given]) for row in rows}
        assert all(one["question"].endswith("?") and str(one[given]) in known for one in found.values())


def test_other_questions_are_another_run(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    options = ("--set", "rows=receiver", "--set", "limit=6", "--json", "-")
    runs = [json.loads(call(data, *options, "--set", f"seed={seed}").stdout) for seed in ("1", "2")]
    assert runs[0]["predictions"] != runs[1]["predictions"]


def test_no_time_is_no_failure_and_the_report_says_so(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    done = call(data, "--set", "rows=receiver", "--max-minutes", "0", "--json", "-")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["complete"] is False
    assert "The same call goes on" in done.stderr


def test_long_documents_are_left_out_and_counted(call: Any, tmp_path: Path) -> None:
    long = [{"id": "x", "context": "word " * 200, "question": "Which word?", "answers": ["word"]}]
    data = write(tmp_path / "data.jsonl", DOCUMENTS + long)
    report = json.loads(
        call(data, "--set", "rows=receiver", "--set", "max_document_chars=500", "--json", "-").stdout
    )
    assert report["left_out"] == {"over documents of more than 500 characters": 1}
    assert report["data"]["questions"] == len(DOCUMENTS)


def test_multiple_choice_is_told_by_its_fields(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "arc.jsonl", CHOICES)
    report = json.loads(call(data, "--set", "rows=receiver,fused,calibrated", "--json", "-").stdout)
    assert report["task"] == "choice"
    assert [(row["row"], row["questions"]) for row in report["rows"]] == [("receiver", 6), ("fused", 6)]
    assert set(report["rows"][0]["metrics"]) >= {"lenient", "strict", "letter"}
    assert "the key calibration" in report["not_run"]["calibrated"]


def test_choices_that_cannot_be_asked_are_left_out_and_counted(call: Any, tmp_path: Path) -> None:
    odd = [
        CHOICES[0] | {"id": "long", "question": "tide " * 4100},
        CHOICES[0] | {"id": "text", "context": "word " * 900},
        CHOICES[0] | {"id": "null", "scored_answer": None},
    ]
    data = write(tmp_path / "arc.jsonl", [*odd, *CHOICES])
    report = json.loads(call(data, "--set", "rows=receiver,sharer,relay-fair", "--json", "-").stdout)
    assert report["left_out"] == {
        "without a right answer": 1,
        "longer than the Sharer's window": 1,
        "over documents of more than 4000 characters": 1,
    }
    assert [row["questions"] for row in report["rows"]] == [len(CHOICES)] * 3
    refused = call(write(tmp_path / "odd.jsonl", odd), fails=True)
    assert "no question is left to evaluate: 1 without a right answer, 1 longer" in str(refused.exception)


def test_one_question_has_no_mismatched_row(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "arc.jsonl", CHOICES[:1])
    report = json.loads(call(data, "--set", "rows=receiver,mismatched", "--json", "-").stdout)
    assert [row["row"] for row in report["rows"]] == ["receiver"]
    assert "a higher limit" in report["not_run"]["mismatched"]


def test_drafts_for_questions_with_choices_quote_no_document(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "arc.jsonl", CHOICES)
    options = ("--set", "rows=drafted", "--set")
    assert "no document" in str(call(data, *options, "drafts=raw:quoted2", fails=True).exception)
    report = json.loads(call(data, *options, "drafts=raw:m2", "--json", "-").stdout)
    assert [(row["row"], row["plan"], row["questions"]) for row in report["rows"]] == [
        ("drafted", "raw:m2", 6)
    ]


def test_questions_over_documents_have_no_row_to_fit(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    assert "calibration is for" in str(call(data, "--set", f"calibration={data}", fails=True).exception)


def test_choices_are_fitted_on_training_questions_alone(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "arc.jsonl", CHOICES[:4])
    options = ("--set", "rows=receiver,calibrated", "--json", "-", "--set")
    report = json.loads(
        call(data, *options, f"calibration={write(tmp_path / 'train.jsonl', CHOICES)}").stdout
    )
    assert [row["complete"] for row in report["rows"]] == [True, True]
    assert (report["notes"]["training"], report["notes"]["training also evaluated"]) == (2, 4)
    assert len(report["notes"]["bias"]) == 10
    again = json.loads(call(data, *options, f"calibration={tmp_path / 'train.jsonl'}").stdout)
    assert again["notes"] == report["notes"], "what was fitted is told after a call that had nothing to do"
    refused = call(data, *options, f"calibration={data}", fails=True)
    assert f"{data} holds no question that is not evaluated too" in str(refused.exception)


def test_an_identical_bundle_without_the_head_is_not_run(
    call: Any, tmp_path: Path, tiny_receiver: Path
) -> None:
    identical = save_identity_bundle(tmp_path / "identical", tiny_receiver)
    data = write(tmp_path / "arc.jsonl", CHOICES)
    options = ("--set", "rows=receiver,identical", "--set", f"identical={identical}", "--json", "-")
    report = json.loads(call(data, *options).stdout)
    assert "no shared slices" in report["not_run"]["identical"]


def test_a_plot_is_written(call: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    picture = tmp_path / "rows.svg"
    assert call(data, "--set", "rows=receiver,fused", "--plot", str(picture)).exit_code == 0
    assert "<svg" in picture.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "z", "context": "A note.", "question": "What?"}, "line 17: field 'answers'"),
        ({"id": "z", "context": 5, "question": "What?", "answers": ["x"]}, "line 17: field 'context'"),
    ],
)
def test_a_malformed_row_is_named_by_file_line_and_field(
    call: Any, tmp_path: Path, row: dict[str, Any], said: str
) -> None:
    data = write(tmp_path / "data.jsonl", [*DOCUMENTS, row])
    done = call(data, fails=True)
    assert done.exit_code == 1
    assert f"{data} {said}" in str(done.exception)


def test_a_torn_line_is_named(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    data.write_text(data.read_text(encoding="utf-8") + '{"id": "z", "cont', encoding="utf-8")
    done = call(data, fails=True)
    assert done.exit_code == 1
    assert f"{data} line 17" in str(done.exception)


def test_another_model_than_the_bundles_is_refused(
    call: Any, tmp_path: Path, tiny_sharer: Path, tiny_receiver: Path
) -> None:
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    done = call(data, "--set", f"sharer={tiny_receiver}", fails=True)
    assert done.exit_code == 1
    assert "the bundle's Sharer is tiny-sharer@" in str(done.exception)


def test_an_unknown_row_names_the_known_ones(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    done = call(data, "--set", "rows=receiver,magic", fails=True)
    assert done.exit_code == 1
    assert "unknown row 'magic'" in str(done.exception) and "mismatched" in str(done.exception)


def test_what_would_fail_at_the_end_fails_at_once(call: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    assert "ending must be" in str(call(data, "--plot", "rows.docx", fails=True).exception)
    empty = call(data, "--set", "rows=' ,'", fails=True)
    assert "rows: ' ,' names nothing; [] is an empty list" in str(empty.exception)
    assert not (tmp_path / "work").exists()


def test_positions_and_plans_add_rows_to_what_is_answered(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    options = ("--set", "rows=receiver,own,fused", "--json", "-")
    first = json.loads(call(data, *options).stdout)
    again = json.loads(call(data, *options, "--set", "positions=4,12", "--set", "plans=raw,int8:8").stdout)
    assert first["predictions"] == again["predictions"]
    assert [(row["row"], row["plan"]) for row in again["rows"]] == [
        ("receiver", ""),
        ("own", "raw:m4"),
        ("own", ""),
        ("fused", "raw:m4"),
        ("fused", "int8:m4:8"),
        ("fused", ""),
        ("fused", "int8:8"),
    ]
    assert again["rows"][5] == first["rows"][2], "the bundle's own way is not made again"
    lines = Path(again["predictions"]).read_text(encoding="utf-8").count("\n")
    assert lines == 7 * len(DOCUMENTS)


def test_a_longer_document_is_told_apart_from_its_own(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    options = ("--set", "rows=receiver,text", "--set", "cases=plain,long:200,two", "--json", "-")
    report = json.loads(call(data, *options).stdout)
    name = tmp_path.name
    sources = {part: found["questions"] for part, found in report["parts"].items() if name in part}
    assert sources == {
        name: 16,
        f"{name}, long:200": 16,
        f"{name}, two, its own first": 16,
        f"{name}, two, its own last": 16,
    }
    assert report["data"]["cases"] == ["plain", "long:200", "two"]
    assert report["data"]["questions"] == 64
    alone = report["parts"][name]["rows"]
    assert [(row["row"], row["questions"], row["complete"]) for row in alone] == [
        ("receiver", 16, True),
        ("text", 16, True),
    ]


def test_questions_without_an_answer_are_marked_by_what_is_invented(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    options = ("--set", "rows=receiver,text,fused,mismatched", "--set", "cases=unanswerable", "--json", "-")
    report = json.loads(call(data, *options).stdout)
    assert "does not answer" in report["not_run"]["mismatched"]
    assert [list(row["metrics"])[:2] for row in report["rows"]] == [["abstains", "invents"]] * 3
    assert report["rows"][0]["metrics"]["abstains"]["point"] == 1.0
    long = call(data, "--set", "cases=long:5", fails=True)
    assert "over documents of more than 5 tokens" in str(long.exception)


def test_half_precision_is_another_run(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    options = ("--set", "rows=receiver,fused", "--set", "limit=4", "--json", "-")
    runs = [
        json.loads(call(data, *options, "--set", f"dtype={dtype}").stdout)
        for dtype in ("float32", "bfloat16")
    ]
    assert [run["dtype"] for run in runs] == ["float32", "bfloat16"]
    assert runs[0]["predictions"] != runs[1]["predictions"]


def test_choices_have_plans_and_no_positions_or_cases(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "arc.jsonl", CHOICES)
    for option in (("--set", "positions=4"), ("--set", "cases=two")):
        assert "for questions over documents" in str(call(data, *option, fails=True).exception)
    plans = "raw,int8:last9,int8:bottleneck:padded"
    options = ("--set", "limit=4", "--set", "rows=fused,mismatched", "--set", f"plans={plans}", "--json", "-")
    report = json.loads(call(data, *options).stdout)
    names = ("", " int8:last9", " int8:bottleneck:padded")
    assert [(row["row"], row["plan"]) for row in report["rows"]] == [
        (row, name.strip()) for row in ("fused", "mismatched") for name in names
    ]
    assert [name for name in report["differences"]["strict"] if "transfer" in name] == [
        f"transfer: fused{name} - mismatched{name}" for name in names
    ]
    assert report["rows"][1]["label"] == "fused, int8:last9"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("positions=4,x", "positions[1]: expected int"),
        ("positions=0", "positions: 0 is not 1 or more"),
        ("plans=int8:x", "plans: int8:x: expected CODEC"),
        ("plans=zip", "plans: codec 'zip'; known are raw"),
        ("plans=raw:last3", "plans: a slice of kind excerpt has no last"),
        ("cases=magic", "unknown case 'magic'"),
        ("cases=plain,unanswerable", "unanswerable"),
        ("limits=3", "unknown key limits; known are batch"),
        ("dtype=float8", "dtype: expected one of"),
        ("limit", "'limit': give key=value"),
        ("batch=0", "batch: 0 is not 1 or more"),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_its_key(
    call: Any, tmp_path: Path, value: str, said: str
) -> None:
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    assert said in str(call(data, "--set", value, fails=True).exception)


EVALUATED = {"data", "limit", "seed", "max_document_chars", "rows", "plans", "positions", "drafts", "dtype"}


def test_the_example_has_every_key_and_is_what_a_call_without_it_is_told(tmp_path: Path) -> None:
    for kind, name, own in (
        (EvaluateConfig, "eval", EVALUATED),
        (ProfileConfig, "profile", set[str]()),
    ):
        path = EXAMPLES / f"{name}.toml"
        given = re.findall(r"^(?:# )?([a-z_]+) = ", path.read_text(encoding="utf-8"), re.MULTILINE)
        keys = {
            f.name for part in (kind, Setup, Dials if kind is ProfileConfig else Setup) for f in fields(part)
        }
        assert set(given) == keys - {"dials"} and len(given) == len(set(given))
        read, usual = (read_settings(kind, at, ["data=records:train"]) for at in (path, None))
        for one, other in zip(read, usual, strict=True):
            changed = {f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name)}
            assert changed <= own


def test_settings_come_from_a_file_and_the_command_line_replaces_them(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    config = tmp_path / "eval.toml"
    config.write_text('limit = 4\nrows = ["receiver"]\n', encoding="utf-8")
    report = json.loads(call(data, str(config), "--set", "limit=3", "--json", "-").stdout)
    assert [(row["row"], row["questions"]) for row in report["rows"]] == [("receiver", 3)]
    config.write_text("limits = 4\n", encoding="utf-8")
    assert f"{config}: unknown key limits" in str(call(data, str(config), fails=True).exception)


def test_the_short_table_is_put_into_a_page(call: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", DOCUMENTS)
    page = tmp_path / "page.md"
    page.write_text("<!-- kvwire eval -->\n<!-- end of kvwire eval -->\n", encoding="utf-8")
    options = ("--set", "rows=receiver,fused,mismatched", "--into", str(page))
    said = call(data, *options, "--max-minutes", "0").stderr
    assert "is left as it was" in " ".join(said.split())
    assert "|" not in page.read_text(encoding="utf-8")
    call(data, *options)
    assert "| **fused** |" in page.read_text(encoding="utf-8")
