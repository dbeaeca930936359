"""`kvwire documents`, over real stores."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from filelock import FileLock
from sqlalchemy import create_engine, text
from typer.testing import CliRunner, Result

from cloud_node.config import CloudConfig
from cloud_node.document_files import meant
from cloud_node.documents import MAX_DOCUMENT_CHARS, Documents, hash_of
from cloud_node.exposure import Budget, Leaving
from cloud_node.users import Principal
from kvwire.identity import Identity
from ops.certs import Certificates
from ops.cli import app
from ops.ingest import Ingest
from ops.sharer_window import ROOM, SharerWindow, sharer_window
from tests import process
from tests.cloud_fixture import write_config

Kvwire = Callable[..., Any]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cloud.toml whose Sharer is not on this machine."""
    monkeypatch.setenv("KVWIRE_CACHE", str(tmp_path / "cache"))
    assert CliRunner().invoke(app, ["init", "cloud", "--directory", str(tmp_path)]).exit_code == 0
    return tmp_path / "cloud.toml"


@pytest.fixture
def kvwire(config: Path) -> Kvwire:
    """Runs `kvwire documents COMMAND ...` for tenant acme; its JSON, with the exit code that is expected."""

    def run(*words: object, code: int = 0, tenant: str = "acme", **options: Any) -> Any:
        command = ["documents", *map(str, words), "--config", str(config), "--tenant", tenant, "--json"]
        done = CliRunner().invoke(app, command, **options)
        assert done.exit_code == code, (done.output, done.exception)
        return json.loads(done.stdout) if done.stdout else done

    return run


def outcomes(report: dict[str, Any]) -> dict[str, str]:
    return {document["id"]: document["outcome"] for document in report["documents"]}


def put(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_folder_is_added_and_added_again_only_where_it_changed(
    tmp_path: Path, config: Path, kvwire: Kvwire
) -> None:
    notes = tmp_path / "notes"
    put(notes / "a.txt", "The key lies under the stone.")
    changing = put(notes / "deep" / "b.txt", "The tide is at nine.")
    added = kvwire("add", notes, "--max-positions", 5)
    assert outcomes(added) == {"a.txt": "added", "deep/b.txt": "added"} and added["failed"] == []
    assert outcomes(kvwire("add", notes)) == {"a.txt": "unchanged", "deep/b.txt": "unchanged"}
    told = CliRunner().invoke(
        app, ["documents", "add", str(notes), "--config", str(config), "--tenant", "acme"]
    )
    assert told.stdout == "2 unchanged\n"
    assert "adding documents" not in told.stderr  # a bar is for a terminal
    put(changing, "The tide is at ten.\r\n")
    again = kvwire("add", notes)
    assert outcomes(again) == {"a.txt": "unchanged", "deep/b.txt": "replaced"}
    assert [document["max_positions"] for document in again["documents"]] == [5, 5]
    assert again["documents"][1]["characters"] == len("The tide is at ten.\n")
    assert kvwire("search", "nine") == []
    assert [hit["document"] for hit in kvwire("search", "ten")] == ["deep/b.txt"]
    limited = kvwire("add", notes, "--kinds", "draft")
    assert outcomes(limited) == {"a.txt": "replaced", "deep/b.txt": "replaced"}
    assert [(one["max_positions"], one["kinds"]) for one in limited["documents"]] == [(5, ["draft"])] * 2


def test_files_that_a_folder_does_not_mean_are_counted_and_named(
    tmp_path: Path, config: Path, kvwire: Kvwire
) -> None:
    notes = tmp_path / "notes"
    put(notes / "a.txt", "The key lies under the stone.")
    others = [str(put(notes / f"{n}.conf", "listen = 1")) for n in range(7)]
    added = kvwire("add", notes)
    assert outcomes(added) == {"a.txt": "added"} and added["left_out"] == others
    words = ["documents", "add", str(notes), "--config", str(config), "--tenant", "acme"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert f"left out, as files of other endings: 7 ({', '.join(others[:5])}, ...)" in done.stderr
    assert f"'{notes}/**/*.conf'" in done.stderr
    assert len(outcomes(kvwire("add", f"{notes}/**/*.conf"))) == 7


def test_no_name_and_no_text_of_a_file_tells_the_terminal_anything(tmp_path: Path, config: Path) -> None:
    notes = tmp_path / "notes"
    put(notes / "a\x1b[2J.txt", "The key\u3000lies under \x1b[2J the stone.")
    put(notes / "b\nkvwire: nothing went wrong.txt", "")
    put(notes / "c'; reboot; '.d'; reboot; '", "left out")

    def run(*words: str) -> str:
        command = ["documents", *words, "--config", str(config), "--tenant", "acme"]
        return CliRunner().invoke(app, command).output

    told = run("add", str(notes))
    assert [line for line in told.splitlines() if line.startswith("kvwire:")] == [
        rf"kvwire: {notes}/b\nkvwire: nothing went wrong.txt: document b-kvwire:-nothing-went-wrong.txt: "
        "there is no text in it"
    ]
    pattern = f"{notes}/**/*.d'; reboot; '"
    assert f"as {shlex.quote(pattern)}" in told
    told += run("search", "--show", "stone") + run("show", "a-2J.txt")
    assert told.count(r"\x1b[2J") == 2 and "\x1b" not in told and "key\u3000lies" in told


def test_a_document_from_elsewhere_is_replaced_only_when_told_so(tmp_path: Path, kvwire: Kvwire) -> None:
    first, second = put(tmp_path / "1" / "note.txt", "one"), put(tmp_path / "2" / "note.txt", "two")
    kvwire("add", first, "--max-positions", 0)
    (failed,) = kvwire("add", second, code=1)["failed"]
    assert (
        failed["source"] == str(second) and str(first) in failed["error"] and "--replace" in failed["error"]
    )
    replaced = kvwire("add", second, "--replace")
    assert outcomes(replaced) == {"note.txt": "replaced"}
    assert replaced["documents"][0]["max_positions"] is None  # of its limits too, as --help says
    (failed,) = kvwire("add", first, second, "--replace", code=1)["failed"]
    assert failed["source"] == str(second) and str(first) in failed["error"] and "--id" in failed["error"]


def test_standard_input_is_read_by_the_same_rule(kvwire: Kvwire) -> None:
    text = "\ufeffMüller's café\r\n"
    kvwire("add", "-", "--id", "piped", input=text.encode())
    assert kvwire("show", "piped")["characters"] == len("Müller's café\n")
    (failed,) = kvwire("add", "-", "--id", "piped", code=1, input="Müller".encode("latin-1"))["failed"]
    assert failed["source"] == "-" and "byte 1 (0xfc) is not utf-8" in failed["error"]
    (failed,) = kvwire("add", "-", "--id", "piped", code=1, input=b"other")["failed"]
    assert "--replace" in failed["error"]
    assert kvwire("add", "-", code=2, input=b"text").exit_code == 2


def test_what_cannot_be_stored_is_told_in_a_line_each_and_the_rest_is_stored(
    tmp_path: Path, config: Path, kvwire: Kvwire
) -> None:
    notes = tmp_path / "notes"
    put(notes / "good.txt", "text")
    put(notes / "empty.txt", "")
    put(notes / "latin.md", "Prüfung".encode("latin-1"))
    put(notes / "long.txt", "x" * (MAX_DOCUMENT_CHARS + 1))
    put(notes / "broken.pdf", b"no PDF")
    put(notes / "binary.txt", b"a\0b")
    command = ["documents", "add", notes, tmp_path / "nowhere", "--config", config, "--tenant", "acme"]
    done = CliRunner().invoke(app, [str(word) for word in command])
    assert done.exit_code == 1 and "good.txt" in done.stdout and "added" in done.stdout
    told = [line for line in done.stderr.splitlines() if line.startswith("kvwire: ")]
    said = {Path(line.split(": ")[1]).name: line for line in told}
    assert len(told) == len(said) == 6
    for name, words in {
        "empty.txt": "there is no text in it",
        "latin.md": "byte 2 (0xfc) is not utf-8",
        "long.txt": f"over {MAX_DOCUMENT_CHARS:,}",
        "broken.pdf": "no PDF that can be read",
        "binary.txt": "character 1 is NUL",
        "nowhere": "No such file",
    }.items():
        assert words in said[name]
    assert [document["id"] for document in kvwire("list")] == ["good.txt"]


def test_a_link_that_leads_out_of_the_folder_named_is_not_read(
    tmp_path: Path, kvwire: Kvwire, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = put(tmp_path / "elsewhere" / "secret.txt", "The key lies under the stone.")
    notes = tmp_path / "notes"
    put(notes / "a.txt", "The tide is at nine.")
    (notes / "inside.txt").symlink_to(notes / "a.txt")
    (notes / "out.txt").symlink_to(secret)
    (notes / "round.txt").symlink_to(notes / "round.txt")
    (notes / "folder").symlink_to(secret.parent)
    report = kvwire("add", notes, code=1)
    assert outcomes(report) == {"a.txt": "added", "inside.txt": "added"}
    said = {Path(failed["source"]).name: failed["error"] for failed in report["failed"]}
    assert "leads out of" in said.pop("out.txt") and "no regular file" in said.pop("round.txt") and not said
    (failed,) = kvwire("add", f"{notes}/*/*.txt", code=1)["failed"]
    assert failed["source"].endswith("folder/secret.txt") and "leads out of" in failed["error"]
    assert outcomes(kvwire("add", notes / "out.txt")) == {"out.txt": "added"}


def test_standard_input_is_read_up_to_the_most_of_one_file(
    kvwire: Kvwire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud_node.document_files.MAX_FILE_BYTES", 10)
    (failed,) = kvwire("add", "-", "--id", "piped", code=1, input=b"x" * 11)["failed"]
    assert "bytes are over 10" in failed["error"]


class _NeverAsked:
    def check(self, text: str) -> None:
        raise AssertionError("a text that is too long was tokenised")


def test_a_text_of_too_many_characters_is_refused_before_it_is_tokenised(
    tmp_path: Path, config: Path
) -> None:
    long = put(tmp_path / "long.txt", "x" * (MAX_DOCUMENT_CHARS + 1))
    documents = Documents(CloudConfig.load(config).documents)
    (done,) = Ingest(documents, "acme", window=cast(SharerWindow, _NeverAsked()))(meant(str(long)))
    documents.close()
    assert isinstance(done, ValueError) and f"over {MAX_DOCUMENT_CHARS:,}" in str(done)


def test_a_failure_of_the_store_is_that_file_s_by_name_and_the_list_goes_on(
    tmp_path: Path, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notes = tmp_path / "notes"
    put(notes / "a.txt", "The tide is at nine.")
    put(notes / "b.txt", "The key lies under the stone.")
    put(notes / "c.txt", "The boat is red.")
    url = CloudConfig.load(config).documents
    documents = Documents(url)
    assert [done[0] for done in Ingest(documents, "acme")(meant(str(notes))) if isinstance(done, tuple)]
    for name in ("a", "b", "c"):
        put(notes / f"{name}.txt", f"Another text, {name}.")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TRIGGER t BEFORE UPDATE ON documents WHEN NEW.id = 'b.txt' "
                "BEGIN SELECT abs(-9223372036854775807 - 1); END"
            )
        )
    outcomes = Ingest(documents, "acme")(meant(str(notes)))
    first, second, third = next(outcomes), next(outcomes), next(outcomes)
    assert isinstance(first, tuple) and isinstance(third, tuple) and isinstance(second, OSError)
    assert str(second) == "the store of documents failed: OperationalError (SQLITE_ERROR)"
    engine.dispose()
    documents.close()
    Path(engine.url.database or "").write_bytes(b"no database at all" * 100)
    assert list(outcomes) == [] and "what was replaced stays" in caplog.text


def test_a_document_longer_than_the_sharer_can_read_is_told_when_it_is_added(
    tmp_path: Path, config: Path, kvwire: Kvwire, tiny_sharer: Path
) -> None:
    note = put(tmp_path / "note.txt", "The tide is at nine. " * 20)
    unknown = kvwire("show", "none", code=1)
    assert not unknown.stdout
    added = CliRunner().invoke(
        app, ["documents", "add", str(note), "--config", str(config), "--tenant", "acme"]
    )
    assert added.exit_code == 0 and "it is not on this machine" in added.stderr
    assert kvwire("show", "note.txt")["tokens"] is None
    toml = config.read_text(encoding="utf-8")
    model = next(line for line in toml.splitlines() if line.startswith("model = "))
    config.write_text(
        toml.replace(model, f'model = "{tiny_sharer}"\nmax_prompt_tokens = {ROOM + 150}'), encoding="utf-8"
    )
    tokens = kvwire("show", "note.txt")["tokens"]
    window = sharer_window(CloudConfig.load(config))
    assert window is not None and tokens == window.tokens(note.read_text()) > window.longest == 150
    long, short = put(tmp_path / "long.txt", note.read_text() * 9), put(tmp_path / "short.txt", "The tide.")
    added = CliRunner().invoke(
        app, ["documents", "add", str(long), str(short), "--config", str(config), "--tenant", "acme"]
    )
    assert added.exit_code == 0 and "2 added" in added.stdout
    assert "long.txt: 1,621 tokens are over 150" in added.stderr
    assert "short.txt" not in added.stderr
    each = 2 * 4 * 2 * 16 * 4  # K and V, layers, heads, numbers, bytes
    assert f"at most {window.tokens('The tide.') * each / 1e6:,.1f} MB on disk" in added.stderr
    report = kvwire("add", long, short, "--replace", "--max-positions", 3)
    assert report["prefixes"] == {"bytes": window.tokens("The tide.") * each, "seconds": None}
    told = report["documents"]
    assert [one["tokens"] for one in told] == [window.tokens(long.read_text()), window.tokens("The tide.")]
    assert [one["passages"] for one in told] == [4, 1]


def test_show_tells_what_is_known_and_no_text(tmp_path: Path, config: Path, kvwire: Kvwire) -> None:
    note = put(tmp_path / "note.txt", "zebra-canary-7731")
    kvwire("add", note, "--id", "note-1", "--max-positions", 3, "--kinds", "draft,excerpt")
    told = kvwire("show", "note-1")
    assert told | {"added": ""} == {
        "id": "note-1",
        "characters": 17,
        "tokens": None,
        "max_positions": 3,
        "kinds": ["draft", "excerpt"],
        "version": told["version"],
        "text_hash": hash_of("zebra-canary-7731"),
        "source": str(note),
        "added": "",
        "passages": 1,
        "positions_per_day": 0,
        "questions_per_day": 0,
        "new_positions_per_day": 0,
        "everybody": True,
        "granted": [],
    }
    shown = CliRunner().invoke(
        app, ["documents", "show", "note-1", "--config", str(config), "--tenant", "acme"]
    )
    for words in (
        str(note),
        told["version"][:12],
        "draft, excerpt",
        "not on this machine",
        told["added"][:10],
    ):
        assert words in shown.stdout
    assert "canary" not in shown.stdout


def test_a_search_prints_text_only_when_told_to(tmp_path: Path, config: Path, kvwire: Kvwire) -> None:
    kvwire("add", put(tmp_path / "note.txt", "Filler. " * 300 + "\n\nThe zebra canary sings."))
    (hit,) = kvwire("search", 'Where does the "zebra" sing?', "-k", 1)
    assert set(hit) == {"document", "passage", "begins", "ends", "score"} and hit["document"] == "note.txt"
    (shown,) = kvwire("search", "zebra", "--show")
    assert shown["text"].endswith("The zebra canary sings.")
    command = ["documents", "search", "zebra", "--config", str(config), "--tenant", "acme"]
    plain, text = (CliRunner().invoke(app, [*command, *more]).stdout for more in ([], ["--show"]))
    assert "note.txt" in plain and "canary" not in plain and "canary" in text
    nothing = CliRunner().invoke(app, [*command[:2], "nowhere", *command[3:]])
    assert (nothing.exit_code, nothing.stdout) == (0, "") and "no passage" in nothing.stderr
    assert kvwire("search", "zebra", tenant="other") == []


def test_looking_needs_no_tenant_where_one_alone_has_documents(
    tmp_path: Path, config: Path, kvwire: Kvwire
) -> None:
    def look(*words: str) -> Result:
        return CliRunner().invoke(app, ["documents", *words, "--config", str(config), "--json"])

    assert str(look("list").exception) == "there are no documents yet"
    kvwire("add", put(tmp_path / "a.txt", "The zebra sings."))
    assert [one["id"] for one in json.loads(look("list").stdout)] == ["a.txt"]
    assert json.loads(look("show", "a.txt").stdout)["id"] == "a.txt"
    assert len(json.loads(look("search", "zebra").stdout)) == 1
    kvwire("add", tmp_path / "a.txt", tenant="other")
    assert str(look("list").exception) == "say whose: --tenant acme or other"
    assert look("remove", "a.txt").exit_code == 2  # who changes something says whose it is


def test_removing_what_is_not_there_is_an_error_by_name(tmp_path: Path, config: Path, kvwire: Kvwire) -> None:
    kvwire("add", put(tmp_path / "a.txt", "a"), put(tmp_path / "b.txt", "b"))
    command = (
        "documents",
        "remove",
        "a.txt",
        "nosuch",
        "--config",
        str(config),
        "--tenant",
        "acme",
        "--json",
    )
    done = process.kvwire(*command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "kvwire: there is no document 'nosuch' of tenant 'acme'\n"
    assert len(kvwire("list")) == 2
    assert kvwire("remove", "a.txt", "b.txt") == {"removed": ["a.txt", "b.txt"]}
    assert kvwire("list") == []
    other = CliRunner().invoke(app, ["documents", "list", "--config", str(config), "--tenant", "acm"])
    assert other.stdout == "" and "tenant acm has no documents" in other.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--encoding", "latin-9000"), "latin-9000"),
        (("--encoding", "hex"), "hex"),
        (("--kinds", "drafts"), "drafts"),
        (("--id", "a", "README.md"), "2 files"),
    ],
)
def test_options_that_cannot_be_are_wrong_use(
    tmp_path: Path, config: Path, words: tuple[str, ...], said: str
) -> None:
    note = put(tmp_path / "note.txt", "text")
    readme = [str(put(tmp_path / word, "text")) if word.endswith(".md") else word for word in words]
    command = ["documents", "add", str(note), *readme, "--config", str(config), "--tenant", "acme"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2 and said in done.stderr


@pytest.mark.parametrize(("suffix", "module"), [(".pdf", "pypdf"), (".docx", "mammoth")])
def test_without_the_extra_an_error_names_it_and_other_files_are_added(
    tmp_path: Path, config: Path, suffix: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper, note = put(tmp_path / f"paper{suffix}", b"raw"), put(tmp_path / "note.txt", "text")
    monkeypatch.setitem(sys.modules, module, None)
    command = (
        "documents",
        "add",
        str(paper),
        str(note),
        "--config",
        str(config),
        "--tenant",
        "acme",
        "--json",
    )
    done = process.kvwire(*command)
    assert done.returncode == 1 and outcomes(json.loads(done.stdout)) == {"note.txt": "added"}
    assert f"{paper}: this needs {module}: pip install 'kvwire[documents]'\n" in done.stderr


def test_a_document_that_was_replaced_is_in_no_file(tmp_path: Path, config: Path, kvwire: Kvwire) -> None:
    note = put(tmp_path / "notes" / "note.txt", "zebracanary7731 " * 50)
    kvwire("add", note)
    node = Documents(CloudConfig.load(config).documents)
    assert node.get("acme", "note.txt").text
    put(note, "Another text.")
    kvwire("add", note)
    stores = list(tmp_path.glob("documents.db*"))
    assert stores and not [file for file in stores if b"zebracanary" in file.read_bytes()]
    node.close()


EDGE = "spiffe://kvwire/edge/acme"
KIOSK = f"{EDGE}/kiosk-3"


def test_budgets_of_a_day_are_kept_like_other_limits(tmp_path: Path, kvwire: Kvwire) -> None:
    note = put(tmp_path / "a.txt", "The key lies under the stone.")
    (added,) = kvwire("add", note, "--positions-per-day", 40, "--questions-per-day", 9)["documents"]
    assert (added["positions_per_day"], added["questions_per_day"]) == (40, 9)
    assert outcomes(kvwire("add", note)) == {"a.txt": "unchanged"}
    (changed,) = kvwire("add", note, "--questions-per-day", 3)["documents"]
    assert (changed["positions_per_day"], changed["questions_per_day"]) == (40, 3)
    assert kvwire("show", "a.txt")["positions_per_day"] == 40
    (changed,) = kvwire("add", note, "--new-positions-per-day", 5)["documents"]
    assert (changed["positions_per_day"], changed["new_positions_per_day"]) == (40, 5)
    assert outcomes(kvwire("add", note)) == {"a.txt": "unchanged"}


def test_a_document_is_granted_to_some_and_shown_who_may_ask(
    tmp_path: Path, config: Path, kvwire: Kvwire
) -> None:
    def told(*words: object) -> tuple[bool, list[str]]:
        found = kvwire(*words)
        return found["everybody"], found["granted"]

    kvwire("add", put(tmp_path / "a.txt", "The key lies under the stone."))
    assert told("show", "a.txt") == (True, [])
    refused = kvwire("grant", "a.txt", "--user", "ilse", code=1)
    assert "knows no users" in str(refused.exception) and told("show", "a.txt") == (True, [])
    put(tmp_path / "jwks.json", '{"keys": []}')
    text = config.read_text("utf-8").replace(
        "[sharer]", '[users]\njwks = "jwks.json"\naudience = "kvwire/acme"\n\n[sharer]', 1
    )
    config.write_text(text, "utf-8")
    command = ["documents", "grant", "a.txt", "--to", KIOSK, "--config", str(config), "--tenant", "acme"]
    said = [CliRunner().invoke(app, command).stderr for _ in range(2)]
    assert (
        "now only those granted can (kvwire documents grant a.txt --everybody --tenant acme undoes it)"
        in said[0]
    )
    assert said[1] == ""
    assert told("grant", "a.txt", "--to", EDGE) == (False, [EDGE, KIOSK])
    assert told("revoke", "a.txt", "--from", EDGE) == told("show", "a.txt") == (False, [KIOSK])
    assert told("grant", "a.txt", "--user", "ilse") == (False, [KIOSK, "user:ilse"])
    assert told("revoke", "a.txt", "--user", "ilse") == (False, [KIOSK])
    kvwire("grant", "a.txt", "--user", "no name", code=1)
    kvwire("revoke", "a.txt", code=2)
    assert told("revoke", "a.txt", "--from", KIOSK) == (False, [])
    assert told("grant", "a.txt", "--everybody") == (True, [])
    kvwire("grant", "a.txt", code=2)
    kvwire("grant", "a.txt", "--to", KIOSK, "--everybody", code=2)


def test_what_has_left_is_told_by_day_and_marked_in_the_text(
    tmp_path: Path, config: Path, kvwire: Kvwire
) -> None:
    kvwire("add", put(tmp_path / "a.txt", "The key lies under \x1b[2J the stone."))
    documents = Documents(CloudConfig.load(config).documents)
    documents.count(Principal(Identity.parse(KIOSK)), [Leaving("a.txt", Budget(), 5, ((0, 3), (4, 7)))])
    documents.count(Principal(Identity.parse(EDGE)), [Leaving("a.txt", Budget(), 2, ((4, 7), (8, 12)))])
    documents.close()
    told = kvwire("exposure", "a.txt")
    assert [(day["identity"], day["questions"], day["positions"]) for day in told["days"]] == [
        (EDGE, 1, 2),
        (KIOSK, 1, 5),
    ]
    assert told["quoted"][1] == {"identity": KIOSK, "positions": 2, "spans": [[0, 3, 1], [4, 7, 1]]}
    assert told["characters_quoted"] == 10
    shown = ["documents", "exposure", "a.txt", "--config", str(config), "--tenant", "acme"]
    table = CliRunner().invoke(app, shown).stdout
    assert "key" not in table and "new positions" in table
    text = CliRunner().invoke(app, [*shown, "--show"]).stdout
    assert "3 different positions were quoted, 10 of 34 characters" in text
    assert "[[1:The]] [[2:key]] [[1:lies]] under \\x1b[2J the stone." in text and "\x1b[2J" not in text
    kvwire("remove", "a.txt")
    assert kvwire("exposure", "a.txt")["days"] == told["days"]
    kvwire("exposure", "nosuch", code=1)


def test_what_is_named_is_stored_without_it(tmp_path: Path, config: Path, kvwire: Kvwire) -> None:
    note = put(tmp_path / "note.txt", "Ilse keeps the key: ilse@example.com.")
    kvwire("add", note)
    plain = config.read_text(encoding="utf-8")
    config.write_text(plain.replace("patterns = []", 'patterns = ["email"]'), encoding="utf-8")
    assert outcomes(kvwire("add", note)) == {"note.txt": "replaced"}
    assert outcomes(kvwire("add", note)) == {"note.txt": "unchanged"}
    documents = Documents(CloudConfig.load(config).documents)
    assert documents.get("acme", "note.txt").text == "Ilse keeps the key: [email]."
    assert not documents.search("acme", "example", k=3)
    documents.close()


def test_documents_are_read_now_by_a_command_and_its_files_go_with_them(
    tmp_path: Path, certificates: Certificates, tiny_sharer: Path, tiny_bundle: Path
) -> None:
    config = write_config(
        tmp_path / "cloud", tiny_sharer, tiny_bundle, certificates, {"sharer": {"prefix_store": "kept"}}
    )

    def kvwire(*words: object) -> Any:
        done = CliRunner().invoke(app, ["documents", *map(str, words), "--config", str(config), "--json"])
        assert done.exit_code == 0, (done.output, done.exception)
        return json.loads(done.stdout)

    for tenant, words in (("acme", "The key lies under the stone."), ("other", "The tide is at nine.")):
        kvwire("add", put(tmp_path / "note.txt", words), "--tenant", tenant)
    long = put(tmp_path / "long.txt", "The tide is at nine. " * 5_000)
    told = kvwire("warm", "--tenant", "other")
    assert (told["read"], told["there"]) == (1, 0)
    kvwire("add", long, "--tenant", "other")
    told = kvwire("warm")
    kept = sorted((tmp_path / "cloud" / "kept").rglob("*.safetensors"))
    assert told == {
        "read": 1,
        "there": 1,
        "too_long": 1,
        "no_room": 0,
        "gone": 0,
        "failed": 0,
        "bytes": sum(path.stat().st_size for path in kept),
    }
    assert len(kept) == 2
    assert (
        kvwire("add", put(tmp_path / "more.txt", "The bell."), "--tenant", "acme")["prefixes"]["seconds"] >= 0
    )
    kvwire("remove", "note.txt", "--tenant", "other")
    (left,) = [path for path in kept if path.exists()]
    kvwire("add", put(tmp_path / "note.txt", "Another text."), "--tenant", "acme")  # takes its place
    assert not left.exists()
    with FileLock(tmp_path / "cloud" / "kept" / ".reading"):  # as a cloud that reads ahead holds it
        refused = CliRunner().invoke(app, ["documents", "warm", "--config", str(config)])
    assert refused.exit_code == 1 and "another process" in str(refused.exception)
    off = write_config(tmp_path / "off", tiny_sharer, tiny_bundle, certificates)
    refused = CliRunner().invoke(app, ["documents", "warm", "--config", str(off)])
    assert refused.exit_code == 1 and 'prefix_store is ""' in str(refused.exception) + refused.output
