"""K and V of documents on disk: the same bits as without, and whatever is wrong with a file is a miss."""

import dataclasses
import errno
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.kv import prefix_files
from fuser.kv.past import PrefixCache
from fuser.kv.prefix_files import PrefixFiles, PrefixFrom, StoredText
from fuser.kv.prefix_store import PrefixStore
from fuser.models.directory import model_ref
from fuser.models.load import load_model
from fuser.sharer import Caller, Sharer
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind

TEXT = "The spare key is under the third stone. " * 4
NOTE = StoredText("acme", "note.txt", "0" * 32)


def asking(question: str = "Where is it?", text: str = TEXT) -> tuple[Section, ...]:
    return (
        Section(Role.DOCUMENT, Visibility.CLOUD, text=text),
        Section(Role.QUESTION, Visibility.SHARED, text=question),
    )


@pytest.fixture(scope="module")
def plain(tiny_sharer: Path, tiny_bundle: Path) -> Sharer:
    return Sharer(*load_model(tiny_sharer), Bundle.load(tiny_bundle))


class Machine:
    """A folder, and Sharers over it as processes that are started one after another would have them."""

    def __init__(self, plain: Sharer, root: Path) -> None:
        self._plain, self.files = plain, PrefixFiles(root, 1 << 24)
        self.ref = plain.bundle.config.sharer

    def store(self) -> PrefixStore:
        return PrefixStore(self.files, self.ref, self._plain.model)

    def started(self, memory: int = 0) -> Sharer:
        plain = self._plain
        return Sharer(plain.model, plain.tokenizer, plain.bundle, PrefixCache(memory), self.store())

    @property
    def paths(self) -> list[Path]:
        return [path for path in self.files.root.rglob("*") if path.is_file()]


@pytest.fixture
def machine(plain: Sharer, tmp_path: Path) -> Machine:
    return Machine(plain, tmp_path / "prefixes")


def run(
    sharer: Sharer, kind: SliceKind = SliceKind.EXCERPT, text: StoredText = NOTE, question: str = "Where?"
) -> tuple[list[Tensor], PrefixFrom]:
    """The slice, and where the document's K and V came from."""
    parts: list[Tensor] = []
    found: list[PrefixFrom] = []
    caller = Caller(owner=text.owner, stored=text, found=found.append)
    sharer.run(sharer.layout(asking(question), kind, 8), lambda _, tensor: parts.append(tensor), caller)
    if sharer._store is not None:
        sharer._store.flush()
    return parts, found[-1]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) > 0 and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", SliceKind)
def test_what_was_stored_before_a_restart_changes_no_bit_of_any_slice(
    plain: Sharer, machine: Machine, kind: SliceKind
) -> None:
    _, first = run(machine.started())
    assert first is PrefixFrom.MODEL and len(machine.paths) == 1
    again = machine.started(memory=1 << 24)
    for question, source in (("Who keeps the key?", PrefixFrom.DISK), ("谁有钥匙？", PrefixFrom.MEMORY)):
        fresh, _ = run(plain, kind, question=question)
        stored, found = run(again, kind, question=question)
        assert found is source
        assert same(fresh, stored)


def test_a_document_that_is_read_ahead_is_found_by_its_first_question(machine: Machine) -> None:
    sharer = machine.started()
    prompt = sharer.prompt(asking("?"))
    assert not sharer.is_read(prompt, NOTE)
    sharer._run({0: sharer.reading_ahead(prompt, Caller(owner=NOTE.owner, stored=NOTE))})
    assert sharer._store is not None
    sharer._store.flush()
    assert sharer.is_read(prompt, NOTE)
    assert run(machine.started(), question="Who keeps the key, and where?")[1] is PrefixFrom.DISK


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(NOTE, owner="other"),
        dataclasses.replace(NOTE, document="copy.txt"),
        dataclasses.replace(NOTE, version="1" * 32),
    ],
)
def test_the_same_text_of_another_tenant_document_or_version_is_read_for_itself(
    machine: Machine, other: StoredText
) -> None:
    run(machine.started())
    assert run(machine.started(), text=other)[1] is PrefixFrom.MODEL
    assert run(machine.started())[1] is PrefixFrom.DISK


def test_another_revision_or_other_numbers_of_the_model_are_another_store(
    machine: Machine, tiny_sharer: Path, tiny_bundle: Path
) -> None:
    run(machine.started())
    machine.ref = dataclasses.replace(machine.ref, revision="another")
    assert run(machine.started())[1] is PrefixFrom.MODEL
    model, tokenizer = load_model(tiny_sharer, dtype=torch.bfloat16)
    store = PrefixStore(machine.files, model_ref(tiny_sharer), model)
    rounded = Sharer(model, tokenizer, Bundle.load(tiny_bundle), PrefixCache(0), store)
    assert run(rounded)[1] is PrefixFrom.MODEL
    assert len(machine.paths) == 3


def test_files_are_their_owners_alone_and_name_nobody(machine: Machine) -> None:
    machine.files.root.mkdir(mode=0o755)
    run(machine.started())
    (path,) = machine.paths
    assert path.stat().st_mode & 0o777 == 0o600
    for folder in (path.parent, path.parent.parent, machine.files.root):
        assert folder.stat().st_mode & 0o777 == 0o700
    told = str(path.relative_to(machine.files.root)).encode() + path.read_bytes()
    assert b"acme" not in told and b"note.txt" not in told and b"spare key" not in told


def _ways_to_spoil(raw: bytes) -> Iterator[tuple[str, bytes]]:
    head = 8 + int.from_bytes(raw[:8], "little")
    yield "empty", b""
    yield "torn in its head", raw[: head // 2]
    yield "torn", raw[:-1]
    yield "longer", raw + b"\0"
    yield "of another kind", b"\x80\x04." * 100  # a pickle, among others
    for at in (0, 9, head // 3, head // 2, head - 4, head, head + 500, len(raw) - 1):
        yield f"flipped at {at}", raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


@pytest.mark.parametrize("kind", [SliceKind.EXCERPT, SliceKind.DRAFT])
def test_a_damaged_torn_or_foreign_file_is_a_miss_that_is_logged_removed_and_read_anew(
    plain: Sharer, machine: Machine, kind: SliceKind, caplog: pytest.LogCaptureFixture
) -> None:
    right, _ = run(plain, kind)
    run(machine.started())
    (path,) = machine.paths
    raw = path.read_bytes()
    for how, spoilt in _ways_to_spoil(raw):
        path.write_bytes(spoilt)
        caplog.clear()
        parts, found = run(machine.started(), kind)
        assert same(parts, right), how
        assert found is PrefixFrom.MODEL, how
        assert [record.levelno for record in caplog.records] == [logging.WARNING], how
        assert caplog.text.count("a stored prefix is removed") == 1 and "note" not in caplog.text, how
        run(machine.started())  # it was not written again where damage was found in the middle
        assert run(machine.started(), kind)[1] is PrefixFrom.DISK, how


def test_a_file_under_the_name_of_another_is_not_taken_for_it(machine: Machine) -> None:
    other = dataclasses.replace(NOTE, document="other.txt")
    run(machine.started())
    (path,) = machine.paths
    foreign = path.read_bytes()
    run(machine.started(), text=other)
    (taken,) = {*machine.paths} - {path}
    taken.write_bytes(foreign)
    assert run(machine.started(), text=other)[1] is PrefixFrom.MODEL
    taken.unlink()
    taken.symlink_to(path)
    assert run(machine.started(), text=other)[1] is PrefixFrom.MODEL
    assert path.exists()


@pytest.mark.parametrize("kind", SliceKind)
def test_damage_in_an_upper_layer_found_while_lower_ones_have_left_repeats_none_of_them(
    plain: Sharer, machine: Machine, kind: SliceKind
) -> None:
    run(machine.started())
    (path,) = machine.paths
    raw = bytearray(path.read_bytes())
    head = 8 + int.from_bytes(raw[:8], "little")
    raw[head + (len(raw) - head) * 3 // 8] ^= 1  # the second of four layers
    path.write_bytes(raw)
    sharer = machine.started()
    assert sharer._store is not None
    sharer._store._ahead.shutdown()  # nothing finds it before the model comes there

    class Never:
        def submit(self, *_: object) -> None: ...

    sharer._store._ahead = Never()  # type: ignore[assignment]
    parts, found = run(sharer, kind)
    assert found is PrefixFrom.MODEL
    assert same(parts, run(plain, kind)[0])
    assert machine.paths == []


def test_what_was_not_used_longest_goes_first_and_what_fits_never_goes_nowhere(machine: Machine) -> None:
    run(machine.started())
    (path,) = machine.paths
    size = path.stat().st_size
    texts = [dataclasses.replace(NOTE, document=f"{number}.txt") for number in range(4)]
    machine.files = PrefixFiles(machine.files.root, 3 * size + size // 2)
    for age, text in enumerate(texts[:2]):
        run(machine.started(), text=text)
        for own in machine.paths:
            os.utime(own, (1000 + age, 1000 + age))
    run(machine.started(), text=texts[0])  # used now
    run(machine.started(), text=texts[2])
    assert run(machine.started(), text=texts[0])[1] is PrefixFrom.DISK
    assert sum(own.stat().st_size for own in machine.paths) <= 3 * size + size // 2
    assert len(machine.paths) == 3
    machine.files = PrefixFiles(machine.files.root, size // 2)
    run(machine.started(), text=texts[3])
    assert len(machine.paths) == 3  # nothing has to go for what would not fit


def test_no_disk_is_filled_to_its_end(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_files, "_LEFT_FREE", 1 << 60)
    assert run(machine.started())[1] is PrefixFrom.MODEL
    assert machine.paths == [] and machine.files.room == 0


def test_a_disk_that_takes_no_more_leaves_no_part_of_a_file_and_stops_no_answer(
    plain: Sharer, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        parts, _ = run(machine.started())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert same(parts, run(plain)[0])
    assert machine.paths == []
    assert "could not be stored" in caplog.text


_WRITER = """
import sys, torch
from pathlib import Path
from fuser.kv.prefix_files import PrefixFiles, StoredText
from fuser.kv.prefix_store import PrefixStore
from fuser.models.directory import model_ref
from fuser.models.load import load_model
model, _ = load_model(sys.argv[1])
store = PrefixStore(PrefixFiles(Path(sys.argv[2]), 1 << 24), model_ref(sys.argv[1]), model)
ids = torch.arange(300)
generator = torch.Generator().manual_seed(7)
kv = [tuple(torch.randn(1, 2, 300, 16, generator=generator) for _ in "kv") for _ in range(4)]
print("ready", flush=True)
sys.stdin.readline()
for _ in range(100):
    assert store.put(StoredText("acme", "note.txt", "0" * 32), ids, kv)
    found = store.get(StoredText("acme", "note.txt", "0" * 32), ids, 4)
    assert found is not None
    assert all(torch.equal(a, b) for one, other in zip(found, kv) for a, b in zip(one, other))
"""


def test_two_processes_write_and_read_one_prefix_at_once(tiny_sharer: Path, machine: Machine) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tiny_sharer), str(machine.files.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdin is not None
            assert process.stdout.readline() == "ready\n"
        ends = []
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            _, errors = process.communicate(timeout=120)
            ends.append((process.returncode, errors))
        assert ends == [(0, ""), (0, "")]
    finally:
        for process in processes:
            process.kill()
    assert len(machine.paths) == 1


def test_a_document_that_is_forgotten_leaves_no_file_and_others_stay(machine: Machine) -> None:
    other = dataclasses.replace(NOTE, document="other.txt")
    for text in (NOTE, dataclasses.replace(NOTE, version="1" * 32), other):
        run(machine.started(), text=text)
    begun = machine.paths[0].with_name(".begun.partial")
    begun.touch()
    os.utime(begun, (0, 0))
    machine.files.forget("acme", "note.txt")
    assert run(machine.started(), text=other)[1] is PrefixFrom.DISK
    machine.files.forget("acme", "note.txt")  # nothing is there any more
    assert sum(path.suffix == ".safetensors" for path in machine.paths) == 1
    run(machine.started())
    assert machine.files.forget_all_but([NOTE]) >= 1
    (left,) = machine.paths
    assert left.name.startswith(NOTE.version)
    assert run(machine.started())[1] is PrefixFrom.DISK


def test_a_link_in_the_place_of_a_folder_is_removed_and_what_it_leads_to_stays(
    machine: Machine, tmp_path: Path
) -> None:
    run(machine.started())
    (path,) = machine.paths
    folder, elsewhere = path.parent, tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    machine.files.forget("acme", "note.txt")
    assert not folder.is_symlink() and (elsewhere / path.name).exists()


def test_whatever_lies_in_the_folder_of_a_document_goes_with_it(machine: Machine) -> None:
    run(machine.started())
    (path,) = machine.paths
    (path.parent / "deep").mkdir()
    (path.parent / "deep" / "copy").write_bytes(path.read_bytes())
    machine.files.forget("acme", "note.txt")
    assert not path.parent.exists()


def test_a_folder_that_cannot_be_removed_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    run(machine.started())

    def refused(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "refused")

    monkeypatch.setattr(Path, "rmdir", refused)
    with pytest.raises(PermissionError):
        machine.files.forget("acme", "note.txt")


def test_a_pipe_in_the_place_of_a_file_is_a_miss_and_does_not_hang(machine: Machine) -> None:
    run(machine.started())
    (path,) = machine.paths
    path.unlink()
    os.mkfifo(path)
    assert run(machine.started())[1] is PrefixFrom.MODEL
    assert path.is_file()


@pytest.mark.parametrize("rate", ["0", "nan", "-5", "inf", ""])
def test_a_rate_that_is_none_is_not_told(machine: Machine, rate: str) -> None:
    machine.files.root.mkdir()
    (machine.files.root / ".tokens_per_s").write_text(rate)
    assert machine.files.tokens_per_s is None
