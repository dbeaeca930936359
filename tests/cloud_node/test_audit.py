import json
import os
import resource
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloud_node.audit import (
    AuditInUse,
    AuditLog,
    AuditRecord,
    BrokenChain,
    NotAFile,
    SummedRecords,
    TornTail,
    verify,
)


def write(path: Path, count: int) -> None:
    log = AuditLog(path)
    for i in range(count):
        log.append(AuditRecord(method="Share", tenant="acme", documents=("a",), bytes=i))
    log.close()


def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "audit.jsonl"
    write(path, 3)
    write(path, 2)
    assert verify(path) == 5
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_line_says_who_got_how_much_of_what(tmp_path: Path) -> None:
    write(tmp_path / "a", 1)
    line = json.loads((tmp_path / "a").read_text())
    assert set(line) == {
        *("time", "method", "tenant", "request_id", "documents", "kind", "positions", "segments"),
        *("bytes", "decision", "seconds", "calls", "previous", "hash"),
    }


@pytest.mark.parametrize("tamper", ["change", "remove", "swap", "insert"])
def test_tampering_is_found(tmp_path: Path, tamper: str) -> None:
    path = tmp_path / "audit.jsonl"
    write(path, 5)
    lines = path.read_text().splitlines()
    if tamper == "change":
        lines[2] = lines[2].replace('"bytes":2', '"bytes":9')
    elif tamper == "remove":
        del lines[2]
    elif tamper == "swap":
        lines[2], lines[3] = lines[3], lines[2]
    else:
        lines.insert(2, lines[1])
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(BrokenChain, match="line 3"):
        verify(path)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "a")
    with pytest.raises(AuditInUse, match="another process writes"):
        AuditLog(tmp_path / "a")
    log.close()
    AuditLog(tmp_path / "a").close()


@pytest.mark.parametrize("lines", [1, 2])
def test_a_last_line_cut_short_is_cut_off_with_a_note_and_the_chain_goes_on(
    tmp_path: Path, lines: int
) -> None:
    path = tmp_path / "a"
    write(path, lines)
    whole = path.read_bytes()
    torn = len(whole.splitlines()[-1]) - 9
    path.write_bytes(whole[:-10])
    with pytest.raises(TornTail, match=f"{torn} bytes of a line cut short after {lines - 1} whole ones"):
        verify(path)
    write(path, 1)
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["decision"] for line in kept] == ["SERVED"] * (lines - 1) + ["MENDED", "SERVED"]
    assert kept[-2]["bytes"] == torn
    assert verify(path) == lines + 1


def test_a_last_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path, 2)
    path.write_bytes(path.read_bytes()[:-1])
    assert verify(path) == 2
    write(path, 1)
    assert [json.loads(line)["decision"] for line in path.read_text().splitlines()] == ["SERVED"] * 3
    assert verify(path) == 3


def test_half_a_line_that_could_not_be_taken_back_is_taken_back_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    log = AuditLog(path)
    log.append(AuditRecord(method="Share", tenant="acme"))
    with monkeypatch.context() as patch, full_disk(path, 100):
        patch.setattr(os, "ftruncate", broken)
        with pytest.raises(OSError):
            log.append(AuditRecord(method="Share", tenant="acme", decision="lost"))
        assert path.read_bytes()[-1:] != b"\n"
        patch.undo()
    log.append(AuditRecord(method="Share", tenant="acme"))
    log.close()
    assert verify(path) == 2


def broken(*_: object) -> None:
    raise OSError("no")


def test_of_many_calls_that_got_nothing_the_first_have_lines_and_the_rest_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    log = AuditLog(tmp_path / "a")
    summed = SummedRecords(log)
    for tenant, calls in (("acme", 1_000), ("other", 3)):
        for _ in range(calls):
            summed.tell(AuditRecord(method="Share", tenant=tenant, decision="BUSY"))
    now += 1.0
    summed.flush()
    summed.tell(AuditRecord(method="Share", tenant="acme", decision="BUSY"))
    lines = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
    counts = [(line["tenant"], line["calls"]) for line in lines]
    assert counts == [("acme", 1)] * 3 + [("other", 1)] * 3 + [("acme", 997), ("acme", 1)]
    log.close()


def test_a_last_line_that_is_no_record_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello\n")
    with pytest.raises(BrokenChain, match=f"{tmp_path / 'a'}: .* move the file away"):
        AuditLog(tmp_path / "a")


@contextmanager
def full_disk(path: Path, room: int = 0) -> Iterator[None]:
    """No file of this process may grow beyond this one's size and `room` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 100])
def test_on_a_full_disk_nothing_is_half_written_and_the_chain_goes_on_after_it(
    tmp_path: Path, room: int
) -> None:
    path = tmp_path / "a"
    log = AuditLog(path)
    log.append(AuditRecord(method="Share", tenant="acme", decision="1"))
    with full_disk(path, room):
        with pytest.raises(OSError, match=str(path)):
            log.append(AuditRecord(method="Share", tenant="acme", decision="lost"))
        assert log.writable(), "nothing waits"
        log.keep(AuditRecord(method="Share", tenant="acme", decision="2"))
        assert not log.writable()
    log.append(AuditRecord(method="Share", tenant="acme", decision="3"))
    assert log.writable()
    log.close()
    assert [json.loads(line)["decision"] for line in path.read_text().splitlines()] == ["1", "2", "3"]
    assert verify(path) == 3


@pytest.mark.parametrize("kind", ["pipe", "/dev/full", "/dev/null"])
def test_a_log_is_a_file_that_keeps_what_is_written(tmp_path: Path, kind: str) -> None:
    path = Path(kind)
    if kind == "pipe":
        path = tmp_path / "pipe"
        os.mkfifo(path)
    with pytest.raises(NotAFile, match=str(path)):
        AuditLog(path)


def test_lines_of_calls_that_got_something_outlast_those_of_calls_that_got_nothing(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "a")
    with full_disk(tmp_path / "a"):
        for _ in range(2_000):
            log.offer(AuditRecord(method="Share", tenant="acme", decision="BUSY"))
        log.keep(AuditRecord(method="Share", tenant="acme"))
        assert not log.writable()
    assert log.writable()
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
    assert [(line["decision"], line["calls"]) for line in lines] == [("SERVED", 1), ("LOST", 2_000)]
    assert verify(tmp_path / "a") == 2


@pytest.mark.parametrize("how", ["removed", "replaced", "cut"])
def test_a_log_that_is_no_longer_at_its_path_takes_no_lines(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a"
    log = AuditLog(path)
    log.append(AuditRecord(method="Share", tenant="acme"))
    assert log.writable()
    if how == "cut":
        path.write_bytes(b"")
    else:
        path.unlink()
        if how == "replaced":
            path.write_bytes(b"")
    assert not log.writable()
    log.close()


def test_an_empty_log_is_whole(tmp_path: Path) -> None:
    AuditLog(tmp_path / "a").close()
    assert verify(tmp_path / "a") == 0
