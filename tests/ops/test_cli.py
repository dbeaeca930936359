"""The command line without any node."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ops.cli import app
from ops.output import print_table, write_said
from tests.process import kvwire, python


def test_certs_prints_where_they_are_until_when_they_are_valid_and_what_to_do_before(tmp_path: Path) -> None:
    command = ["certs", str(tmp_path), "--tenant", "acme", "--edge", "kiosk-3", "--days", "3"]
    done = CliRunner().invoke(app, [*command, "--json"])
    told = json.loads(done.stdout)
    assert set(told) == {"authority", "cloud", "edge acme/kiosk-3"}
    assert all(Path(one["certificate"]).is_file() for one in told.values())
    done = CliRunner().invoke(app, [*command, "--force"])
    day = told["edge acme/kiosk-3"]["valid_until"][:10]
    assert done.stdout.count(f"valid until {day}") == 2  # the authority's end is another
    assert f"`kvwire certs {tmp_path} --renew=cloud --renew=acme/kiosk-3`" in done.stderr
    for again in ("authority", "cloud"):
        done = CliRunner().invoke(app, ["certs", str(tmp_path), "--renew", again])
        assert done.exit_code == 0 and "valid until" in done.stdout and f"--renew={again}`" in done.stderr


def test_an_error_is_one_line_and_status_1(tmp_path: Path) -> None:
    assert kvwire("certs", str(tmp_path), "--tenant", "acme").returncode == 0
    again = python("-m", "ops.cli", "certs", str(tmp_path), "--tenant", "acme")
    assert again.returncode == 1
    assert again.stderr.startswith("kvwire: ")
    assert again.stderr.count("\n") == 1
    assert "--renew acme" in again.stderr


def test_verbose_shows_where_an_error_came_from(tmp_path: Path) -> None:
    kvwire("certs", str(tmp_path), "--tenant", "acme")
    assert "Traceback" in kvwire("--verbose", "certs", str(tmp_path), "--tenant", "acme").stderr


def test_wrong_use_is_status_2() -> None:
    assert kvwire("documents", "add").returncode == 2
    assert kvwire("nonsense").returncode == 2


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("cloud", "cloud.toml"),
        ("edge", "edge.toml"),
        ("ask Who?", "edge.toml"),
        ("chat", "edge.toml"),
        ("documents list --tenant acme", "cloud.toml"),
    ],
)
def test_a_command_of_a_node_takes_the_file_that_init_writes_into_this_folder(
    command: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 2 and f"'{file}' does not exist" in done.stderr


def test_the_version_is_told() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0 and re.fullmatch(r"kvwire \d+\.\d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize(
    ("module", "extra", "command"),
    [
        ("sqlalchemy", "cloud", ("documents", "list", "--tenant", "acme")),
        ("uvicorn", "edge", ("edge",)),
    ],
)
def test_a_missing_library_names_the_extra_that_brings_it(
    tmp_path: Path, module: str, extra: str, command: tuple[str, ...]
) -> None:
    for node in ("cloud", "edge"):
        assert CliRunner().invoke(app, ["init", node, "--directory", str(tmp_path)]).exit_code == 0
    assert CliRunner().invoke(app, ["certs", str(tmp_path / "tls"), "--tenant", "acme"]).exit_code == 0
    config = str(tmp_path / ("edge.toml" if extra == "edge" else "cloud.toml"))
    code = f"import sys; sys.modules[{module!r}] = None; from ops.cli import main; main()"
    done = python("-c", code, *command, "--config", config)
    assert done.returncode == 1
    assert done.stderr == f"kvwire: this needs {module}: pip install 'kvwire[{extra}]'\n"


def test_the_examples_of_init_are_accepted_and_name_what_is_there(tmp_path: Path) -> None:
    """The commands of the README's "Run the two nodes", in one folder, up to the nodes themselves."""
    from cloud_node import CloudConfig
    from edge_node import EdgeConfig

    folder = ("--directory", str(tmp_path))
    note = tmp_path / "note.txt"
    note.write_text("The spare key lies under the flowerpot.", encoding="utf-8")
    for command in (
        ("init", "cloud", *folder, "--tenant", "acme", "--host", "cloud.example"),
        ("certs", str(tmp_path / "tls"), "--tenant", "acme", "--host", "cloud.example"),
        (
            "documents",
            "add",
            str(note),
            "--id",
            "note-1",
            "--tenant",
            "acme",
            "--config",
            str(tmp_path / "cloud.toml"),
        ),
        ("init", "edge", *folder, "--tenant", "acme", "--cloud", "cloud.example:7443"),
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, (command, done.output)
    cloud, edge = CloudConfig.load(tmp_path / "cloud.toml"), EdgeConfig.load(tmp_path / "edge.toml")
    edge.check_files()
    assert Path(cloud.tls.key).is_file() and edge.cloud.address == "cloud.example:7443"
    assert Path(cloud.sharer.bundles[0]).name == "qwen2.5-coder-1.5b--qwen2.5-coder-0.5b"
    assert edge.receiver.bundle == cloud.sharer.bundles[0]
    again = CliRunner().invoke(app, ["init", "cloud", *folder])
    assert isinstance(again.exception, FileExistsError)


def test_init_sets_up_any_pair_that_ships_by_its_name(tmp_path: Path) -> None:
    from edge_node import EdgeConfig
    from fuser.models.directory import shipped_bundles
    from ops.demo.pair import models_of

    for named, shipped in shipped_bundles().items():
        folder = tmp_path / named
        for node, model in zip(("cloud", "edge"), models_of(shipped), strict=True):
            command = ("init", node, "--directory", str(folder), "--bundle", named)
            assert CliRunner().invoke(app, command).exit_code == 0
            text = (folder / f"{node}.toml").read_text(encoding="utf-8")
            assert f'model = "{model}"' in text and f'"{named}"' in text
        edge = EdgeConfig.load(folder / "edge.toml")
        assert Path(edge.receiver.bundle).name == named
        assert (edge.share.plan == "auto") == (shipped / "plans.json").exists()


def test_a_bundle_that_ships_is_named_without_a_path() -> None:
    named = ["bundle", "info", "qwen2.5-coder-0.5b--smollm2-135m", "--json"]
    done = CliRunner().invoke(app, named)
    assert done.exit_code == 0 and json.loads(done.stdout)["receiver"].startswith("smollm2-135m-instruct@")
    wrong = CliRunner().invoke(app, ["bundle", "info", "qwen2.5"])
    assert wrong.exit_code == 2 and "qwen2.5-coder-0.5b--smollm2-135m" in wrong.output


def test_bundle_info_says_what_a_bundle_is_for(tiny_bundle: Path) -> None:
    done = CliRunner().invoke(app, ["bundle", "info", str(tiny_bundle), "--json"])
    info = json.loads(done.stdout)
    assert info["slices"] == "draft, excerpt, shared"
    assert info["sharer"].startswith("tiny-sharer@")
    assert len(info["hash"]) == 64


def test_the_demo_without_a_bundle_says_what_to_do(tmp_path: Path) -> None:
    done = kvwire("demo", "--bundle", str(tmp_path))
    assert done.returncode == 1
    assert "kvwire train" in done.stderr


@pytest.mark.parametrize(
    ("command", "table", "told"),
    [
        (["cloud"], "receiver", "the edge's, which `kvwire edge --config node.toml` runs"),
        (["documents", "list", "--tenant", "acme"], "receiver", "`kvwire documents list` takes the cloud's"),
        (["ask", "Why?"], "sharer", "the cloud's, which `kvwire cloud --config node.toml` runs"),
        (["smoke"], "sharer", "`kvwire smoke` takes the edge's"),
    ],
)
def test_the_other_side_s_configuration_is_refused_by_its_kind(
    command: list[str], table: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("node.toml").write_text(f"[{table}]\n", encoding="utf-8")
    done = CliRunner().invoke(app, [*command, "--config", "node.toml"], prog_name="kvwire")
    said = " ".join(done.output.replace("│", " ").split())
    assert done.exit_code == 2 and told in said, said


NAMES = ["handbook/part-1/" + "x" * 30 + ".md", "spiffe://kvwire/edge/acme/" + "k" * 40]


@pytest.mark.parametrize("width", [60, 100, 200])
def test_no_name_of_a_table_is_cut_or_broken_however_narrow_the_terminal(width: int) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    rows = [(NAMES[0], 7, "words that may stand on lines of their own " * 3), (NAMES[1], 8, "")]
    print_table(("id", "count", "what"), rows, terminal)
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert all(name in shown for name in NAMES) and "…" not in shown
    if "id: " not in shown:  # a table, so it fits
        assert max(map(len, shown.splitlines())) <= width
    assert ("id: " in shown) is (width == 60)


@pytest.mark.parametrize("width", [20, 120])
def test_what_a_table_is_given_commands_no_terminal(width: int) -> None:
    terminal = Console(file=io.StringIO(), width=width, markup=False, emoji=False)
    print_table(("id", "what"), [("\x1b[2Jcleared\x1b]0;title\x07", "[bold]\u202eback")], terminal)
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert r"\x1b[2Jcleared\x1b]0;title\x07" in shown and r"[bold]\u202eback" in shown
    assert "\x1b" not in shown and "\u202e" not in shown


@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_model_says_commands_no_terminal_and_a_program_gets_it_as_it_is(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stdout", shown)
    write_said("\x1b]52;c;aGk=\x07first\n\tsecond")
    assert shown.getvalue() == (
        "\\x1b]52;c;aGk=\\x07first\n\tsecond" if terminal else "\x1b]52;c;aGk=\x07first\n\tsecond"
    )


def test_by_a_pipe_a_table_is_wider_than_an_old_terminal_and_no_name_is_cut() -> None:
    cells = (NAMES[0], "some words " * 30)
    said = python(
        "-c", f"from ops.output import print_table\nprint_table(('id', 'what'), [{cells!r}])"
    ).stdout
    assert NAMES[0] in said and 80 < max(map(len, said.splitlines())) <= 160
