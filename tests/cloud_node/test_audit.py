import dataclasses
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
    Anchor,
    AuditInUse,
    AuditLog,
    AuditRecord,
    BadKey,
    BrokenChain,
    NotAFile,
    canonical,
    files_of,
    hash_of,
    key_beside,
    make_key,
    public_hex,
    signing_key,
)
from cloud_node.audit_chain import TornTail, anchor_text, lines, read_anchors, verify
from cloud_node.call import SummedRecords


def write(path: Path, count: int) -> None:
    log = AuditLog(path)
    for i in range(count):
        log.append(AuditRecord(method="Share", tenant="acme", documents=("a",), bytes=i))
    log.close()


def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "audit.jsonl"
    write(path, 3)
    write(path, 2)
    assert verify(path).records == 5
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_line_says_who_got_how_much_of_what(tmp_path: Path) -> None:
    write(tmp_path / "a", 1)
    line = json.loads((tmp_path / "a").read_text())
    assert set(line) == {
        *("time", "method", "tenant", "user", "request_id", "documents", "kind", "positions", "segments"),
        *("bytes", "decision", "seconds", "calls", "previous", "hash"),
        *("sequence", "identity", "versions", "text_hashes", "quoted", "signature"),
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


def test_a_second_writer_with_a_copy_of_the_key_is_refused_also_after_a_file_was_put_away(
    tmp_path: Path,
) -> None:
    path, copy = tmp_path / "a", tmp_path / "copy.key"
    first = AuditLog(path, rotate_bytes=1)
    copy.write_bytes(key_beside(path).read_bytes())
    for _ in range(3):
        first.append(AuditRecord(method="Share", tenant="acme"))
        with pytest.raises(AuditInUse):
            AuditLog(path, copy)
    first.close()
    assert verify(path).records == 3


def test_two_logs_with_one_key_are_refused_and_told_what_to_do(tmp_path: Path) -> None:
    first = AuditLog(tmp_path / "a", tmp_path / "node.key")
    with pytest.raises(AuditInUse, match=r"node\.key: .* give each node a key of its own \(audit_key"):
        AuditLog(tmp_path / "b", tmp_path / "node.key")
    first.close()
    AuditLog(tmp_path / "b", tmp_path / "node.key").close()


def test_a_log_is_read_whole_while_its_files_are_put_away(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "a", rotate_bytes=1)
    for _ in range(3):
        log.append(AuditRecord(method="Share", tenant="acme"))
    read = lines(tmp_path / "a")
    assert next(read)["sequence"] == 1
    log.append(AuditRecord(method="Share", tenant="acme"))
    assert [line["sequence"] for line in read] == [2, 3]
    log.close()


def test_any_name_of_a_log_finds_the_files_put_away(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit[1]*?", rotate_bytes=1)
    for _ in range(3):
        log.append(AuditRecord(method="Share", tenant="acme"))
    log.close()
    assert verify(log.path).records == 3


def test_a_line_with_two_values_of_one_name_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path, 3)
    path.write_bytes(path.read_bytes().replace(b'"tenant":', b'"tenant":"other","tenant":', 1))
    with pytest.raises(BrokenChain, match="line 1 is not as the log writes it"):
        verify(path)


@pytest.mark.parametrize(
    "line", [b"[" * 100_000, b'{"sequence":null}', b'{"sequence":[1]}', b'{"sequence":1}']
)
def test_a_line_of_any_content_breaks_the_chain_and_nothing_else(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a"
    make_key(key_beside(path))
    path.write_bytes(line + b"\n")
    for use in (lambda: verify(path), lambda: verify(path, first=None), lambda: AuditLog(path)):
        with pytest.raises(BrokenChain):
            use()


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
    assert verify(path).records == lines + 1


def test_a_last_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path, 2)
    path.write_bytes(path.read_bytes()[:-1])
    assert verify(path).records == 2
    write(path, 1)
    assert [json.loads(line)["decision"] for line in path.read_text().splitlines()] == ["SERVED"] * 3
    assert verify(path).records == 3


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
    assert verify(path).records == 2


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
    assert verify(path).records == 3


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
    assert verify(tmp_path / "a").records == 2


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
    assert verify(tmp_path / "a").records == 0


def public_of(path: Path) -> str:
    return public_hex(signing_key(key_beside(path)))


def made_anew(path: Path, change: str, key: Path | None) -> None:
    """What whoever can write the file can do: every line after the first change chained anew, signed with a key."""
    last, text = "0" * 64, b""
    for line in lines(path):
        line |= {"tenant": line["tenant"].replace("acme", change), "previous": last}
        line["hash"] = last = hash_of(line)
        if key is not None:
            line["signature"] = signing_key(key).sign(bytes.fromhex(last)).hex()
        text += canonical(line) + b"\n"
    path.write_bytes(text)


def test_a_log_that_was_made_anew_without_the_nodes_key_is_found(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "other.key"
    write(path, 3)
    public = public_of(path)
    assert verify(path, public).signed and not verify(path).signed
    assert stat.S_IMODE(key_beside(path).stat().st_mode) == 0o600
    made_anew(path, "evil", None)
    with pytest.raises(BrokenChain, match="line 3 of the log is not signed by"):
        verify(path, public)
    make_key(other)
    made_anew(path, "worse", other)
    with pytest.raises(BrokenChain, match="not signed by"):
        verify(path, public)
    with pytest.raises(BrokenChain, match="not signed by"):
        AuditLog(path)
    assert verify(path, public_hex(signing_key(other))).records == 3


def test_an_anchor_kept_elsewhere_shows_what_was_cut_off_and_what_the_key_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path, 3)
    anchors = []
    for _ in range(2):
        write(path, 2)
        last = verify(path).last
        anchors.append(anchor_text(dataclasses.replace(last, public_key=public_of(path))))
    kept = read_anchors("\n".join(anchors))
    write(path, 1)
    assert [one.sequence for one in kept] == [5, 7]
    assert verify(path, None, kept).signed and verify(path, None, kept).records == 8
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:6]))
    assert verify(path, public_of(path)).records == 6, "without an anchor nothing is missing"
    with pytest.raises(BrokenChain, match="cut off after line 6: an anchor names line 7"):
        verify(path, None, kept)
    path.write_bytes(whole)
    made_anew(path, "evil", key_beside(path))
    assert verify(path, public_of(path)).records == 8, "whoever has the key can make it anew"
    with pytest.raises(BrokenChain, match="line 5 of the log is not the one that its anchor names"):
        verify(path, None, kept)
    with pytest.raises(BrokenChain, match="2 different keys"):
        verify(path, "00" * 32, kept)
    for text in ("", "{}x", '{"seq": 1}'):
        with pytest.raises(ValueError, match="anchor"):
            read_anchors(text)


def test_a_log_without_lines_has_an_anchor_too(tmp_path: Path) -> None:
    AuditLog(tmp_path / "a").close()
    assert verify(tmp_path / "a").last == Anchor()
    assert verify(tmp_path / "a", None, [Anchor()]).records == 0


def test_files_are_put_away_by_size_and_the_chain_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for _ in range(2):
        log = AuditLog(path, rotate_bytes=2_000)
        for i in range(5):
            log.append(AuditRecord(method="Share", tenant="acme", documents=("a",), bytes=i))
            assert log.writable()
        log.close()
    files = files_of(path)
    assert len(files) > 2 and files[-1] == path
    assert all(0 < one.stat().st_size <= 2_000 and stat.S_IMODE(one.stat().st_mode) == 0o600 for one in files)
    assert verify(path, public_of(path)).records == 10
    assert [line["sequence"] for line in lines(path)] == list(range(1, 11))
    begun = json.loads(path.read_text().splitlines()[0])
    assert files[-2].name == f"a.jsonl.{begun['sequence'] - 1:012d}"
    middle = files[1].read_bytes()
    files[1].unlink()
    with pytest.raises(BrokenChain, match="line 1 does not follow"):
        verify(path)
    files[1].write_bytes(middle)
    files[0].unlink()
    with pytest.raises(BrokenChain, match="older files are missing"):
        verify(path)
    first = json.loads(middle.splitlines()[0])["sequence"]
    assert verify(path, public_of(path), first=first).first == first
    path.unlink()
    write(path, 1)
    assert verify(path, first=first).last.sequence == begun["sequence"], "a new file takes up the last one"


def test_yesterdays_file_is_put_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    path = tmp_path / "a"
    for _ in range(2):
        log = AuditLog(path, rotate_daily=True)
        for _ in range(2):
            log.append(AuditRecord(method="Share", tenant="acme"))
            now += 86_400 / 2
        log.close()
    assert [one.name for one in files_of(path)] == ["a.000000000002", "a"]
    assert verify(path).records == 4


def test_a_file_that_cannot_be_put_away_takes_no_line_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    log = AuditLog(path, rotate_bytes=700)
    log.append(AuditRecord(method="Share", tenant="acme"))
    real = os.open
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda *_: broken())
        with pytest.raises(OSError):
            log.append(AuditRecord(method="Share", tenant="acme", decision="lost"))
        assert os.open is not real and not log.writable()
    log.append(AuditRecord(method="Share", tenant="acme"))
    assert log.writable()
    path.rename(tmp_path / "moved")
    path.write_text("somebody else's")
    with pytest.raises(OSError, match="File exists"):
        log.append(AuditRecord(method="Share", tenant="acme", decision="lost"))
    assert path.read_text() == "somebody else's" and not log.writable()
    log.close()


@pytest.mark.parametrize("key", ["nothing", "of RSA's"])
def test_a_log_with_lines_takes_no_other_key(tmp_path: Path, key: str) -> None:
    path = tmp_path / "a"
    write(path, 1)
    key_beside(path).unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.key"):
        AuditLog(path)
    key_beside(path).write_text(key)
    with pytest.raises(BadKey, match="no Ed25519 key"):
        AuditLog(path)


def test_a_key_is_there_whole_or_not_at_all_and_never_in_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.key"
    with monkeypatch.context() as full:
        full.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "no space left")))
        with pytest.raises(OSError, match="no space left"):
            make_key(path)
    assert list(tmp_path.iterdir()) == []
    make_key(path)
    key = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600 and list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileExistsError):
        make_key(path)
    assert path.read_bytes() == key
