import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloud_node.audit import SENDING, AuditLog, AuditRecord
from cloud_node.documents import hash_of
from tests.process import kvwire, python

EDGE = "spiffe://kvwire/edge/acme"
TEXT = "The key hangs behind the clock."
VERSION = "0123456789abcdef" * 2


def sent(*quoted: tuple[int, int, int], documents: tuple[str, ...] = ("note",)) -> AuditRecord:
    return AuditRecord(
        method="Share",
        tenant="acme",
        identity=EDGE,
        documents=documents,
        versions=(VERSION, "v2")[: len(documents)],
        text_hashes=(hash_of(TEXT), "t2")[: len(documents)],
        positions=4,
        quoted=quoted,
        decision=SENDING,
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Of three slices, one of them over two documents, in two files."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, rotate_bytes=1_500)
    log.append(sent((0, 4, 7), (0, 8, 13)))
    log.append(sent((0, 4, 7), (1, 0, 3), documents=("note", "other")))
    log.append(AuditRecord(method="Share", tenant="acme", documents=("note",), positions=4))
    log.append(AuditRecord(method="Share", tenant="else", documents=("note",), decision="NOT_FOUND"))
    log.close()
    assert len(list(tmp_path.glob("audit.jsonl*"))) == 2
    return path


def test_a_whole_log_is_told_from_one_that_was_changed(log: Path) -> None:
    done = kvwire("audit-log", "verify", str(log), "--json")
    told = json.loads(done.stdout)
    began, ended = (datetime.fromisoformat(told.pop(name)) for name in ("from", "to"))
    assert began <= ended <= datetime.now(UTC)
    whole = {"file": str(log), "verdict": "whole", "first": 1, "records": 4, "last": 4}
    assert (done.returncode, told) == (0, whole | {"signed": True, "anchors": 0})
    done = kvwire("audit-log", "verify", str(log))
    assert f"whole: 4 lines, {began.isoformat()} to {ended.isoformat()}; signed by the node" in done.stdout
    assert "without an anchor" in done.stdout
    log.write_text(log.read_text().replace("else", "evil"))
    done = kvwire("audit-log", "verify", str(log))
    assert done.returncode == 1
    assert "kvwire: not verified: " in done.stderr and "does not follow" in done.stderr


def test_the_log_and_its_key_are_those_of_the_clouds_configuration_where_no_log_is_named(log: Path) -> None:
    folder = log.parent
    assert kvwire("init", "cloud", "--directory", str(folder)).returncode == 0
    config = folder / "cloud.toml"
    log.with_name("audit.key").rename(folder / "signing.pem")
    config.write_text(config.read_text().replace('# audit_key = "audit.key" ', 'audit_key = "signing.pem" '))
    for words in (["verify"], ["anchor"], ["export"], ["exposure", "note", "--tenant", "acme"]):
        done = kvwire("audit-log", *words, "--config", str(config))
        assert (done.returncode, done.stderr) == (0, ""), words
        assert done.stdout
    assert python("-m", "ops.cli", "audit-log", "verify", cwd=folder).returncode == 0
    log.unlink()
    both = kvwire("audit-log", "verify", str(log), "--config", str(config))
    assert both.returncode == 2 and "either a log or --config" in both.stderr
    config.unlink()
    nothing = python("-m", "ops.cli", "audit-log", "verify", cwd=folder)
    assert nothing.returncode == 2 and "there is no cloud.toml" in nothing.stderr


def test_an_anchor_is_printed_and_shows_a_log_that_was_cut_off_without_the_key(log: Path) -> None:
    done = kvwire("audit-log", "anchor", str(log))
    assert json.loads(done.stdout)["sequence"] == 4
    kept, elsewhere = log.with_name("anchors"), log.with_name("copy")
    kept.write_text(done.stdout)
    elsewhere.mkdir()
    for one in log.parent.glob("audit.jsonl*"):
        (elsewhere / one.name).write_bytes(one.read_bytes())
    copy = elsewhere / log.name
    done = kvwire("audit-log", "verify", str(copy), "--anchor", str(kept), "--json")
    assert json.loads(done.stdout)["signed"] and json.loads(done.stdout)["anchors"] == 1
    copy.unlink()
    done = kvwire("audit-log", "verify", str(copy), "--anchor", str(kept))
    assert done.returncode == 1 and "cut off" in done.stderr and "an anchor names line 4" in done.stderr
    done = kvwire("audit-log", "verify", str(copy))
    assert done.returncode == 1 and "copy/audit.key" in done.stderr.replace("\n", "")


def test_lines_are_exported_by_time_document_and_tenant(log: Path) -> None:
    def exported(*arguments: str) -> str:
        done = kvwire("audit-log", "export", str(log), *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    both = [json.loads(line) for line in exported().splitlines()]
    assert [line["sequence"] for line in both] == [1, 2, 3, 4]
    assert [json.loads(one)["sequence"] for one in exported("--document", "other").splitlines()] == [2]
    assert [json.loads(one)["sequence"] for one in exported("--tenant", "else").splitlines()] == [4]
    for version, lines in ((VERSION, [1, 2]), (VERSION[:12], [1, 2]), ("v2", [2]), ("0" * 32, [])):
        told = exported("--version", version)
        assert [json.loads(one)["sequence"] for one in told.splitlines()] == lines
    assert (
        exported("--until", "2020-01-01") == "" and len(exported("--since", "2020-01-01").splitlines()) == 4
    )
    first, *_ = csv.DictReader(io.StringIO(exported("--format", "csv", "--document", "note")))
    assert (first["tenant"], json.loads(first["quoted"])) == ("acme", [[0, 4, 7], [0, 8, 13]])
    assert exported("--format", "csv", "--document", "nobody").split(",")[0] == "bytes"


def test_what_left_of_a_document_is_told_from_the_log_and_the_text_alone(log: Path) -> None:
    done = kvwire("audit-log", "exposure", "note", str(log), "--tenant", "acme", "--json")
    (version,) = json.loads(done.stdout)["versions"].items()
    assert version[0] == VERSION
    (day,) = version[1]["days"]
    assert (day["identity"], day["questions"], day["positions"]) == (EDGE, 2, 4 + 3)
    assert day["new_positions"] == 4 + 2, "one was quoted twice"
    assert version[1]["quoted"] == [{"identity": EDGE, "spans": [[4, 7, 2], [8, 13, 1]]}]
    text = log.with_name("note.txt")
    text.write_text(TEXT)
    done = kvwire("audit-log", "exposure", "note", str(log), "--tenant", "acme", "--text", str(text))
    assert "'key'" in done.stdout and "'hangs'" in done.stdout
    text.write_text("another")
    done = kvwire("audit-log", "exposure", "note", str(log), "--tenant", "acme", "--text", str(text))
    assert done.returncode == 1 and "no text of note" in done.stderr


def test_a_log_or_a_key_that_is_not_there_is_told_as_such(log: Path) -> None:
    missing = kvwire("audit-log", "verify", str(log.with_name("other.jsonl")))
    assert (missing.returncode, "other.jsonl: there is no such log" in missing.stderr) == (1, True)
    log.with_name("audit.key").unlink()
    keyless = kvwire("audit-log", "anchor", str(log))
    assert keyless.returncode == 1
    assert "audit.key: there is no such key; --key names the one that signs" in keyless.stderr
