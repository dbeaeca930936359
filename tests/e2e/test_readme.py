"""What the README shows works as it stands there."""

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from tests.edge_node.toml import write_toml

if TYPE_CHECKING:
    from edge_node import EdgeConfig
    from tests.cloud_fixture import CloudNode

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> Iterator[str]:
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        yield match[1]


def first_question() -> tuple[str, str, str]:
    """The note that the README adds, what it asks about it first, and the answer that it tells."""
    (note,) = re.findall(r'^    echo "(.+)" > note.txt$', README, re.MULTILINE)
    question = re.findall(r'^    kvwire ask "(.+?)" --document note-1 ', README, re.MULTILINE)[0]
    (told,) = re.findall(r'^The question is answered with "(.+?)"', README, re.MULTILINE)
    return note, question, told


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    os.environ.get("KVWIRE_TEST_REAL") != "1", reason="make test-real runs it: 4 GB of models"
)
@pytest.mark.parametrize(
    "pair", [(), ("--bundle", "qwen2.5-coder-0.5b--smollm2-135m")], ids=["usual", "small"]
)
def test_a_pair_that_init_sets_up_answers_the_first_question_of_the_readme_as_it_says(
    pair: tuple[str, ...], tmp_path: Path
) -> None:
    from cloud_node import CloudConfig
    from edge_node import Ask, EdgeConfig
    from fuser import load_receiver, load_sharers
    from ops.chaos.in_one_process import answer_in_one_process, first_line
    from ops.cli import app
    from ops.models.fetch import resolve

    for node in ("cloud", "edge"):
        CliRunner().invoke(app, ["init", node, "--directory", str(tmp_path), *pair])
    cloud, edge = CloudConfig.load(tmp_path / "cloud.toml"), EdgeConfig.load(tmp_path / "edge.toml")
    (sharer,) = load_sharers(
        str(resolve(cloud.sharer.model)), cloud.sharer.bundles, device="cpu", dtype="auto"
    )
    own = edge.receiver
    receiver = load_receiver(own.bundle, str(resolve(own.model)), device="cpu", dtype="auto")
    assert not pair or pair[1] in README
    note, question, told = first_question()
    kind = edge.share.usual(True, receiver.bundle.config.usual)
    answer = answer_in_one_process(
        sharer,
        receiver,
        Ask(question, document="note-1").prompt(),
        {"note-1": note},
        kind,
        cloud.export.max_positions,
        own.max_new_tokens,
        edge.share.configured(kind),
    )
    assert first_line(answer.text) == told


def test_the_five_lines_of_python_answer_a_question(
    filled_cloud: "CloudNode",
    edge_config: "EdgeConfig",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from cloud_node.documents import Documents

    documents = Documents(f"sqlite:///{filled_cloud.directory / 'documents.db'}")
    documents.add("acme", "note-1", "The spare key lies under the blue flowerpot by the door.", replace=True)
    documents.close()
    write_toml(edge_config, tmp_path / "edge.toml")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line]) <= 5
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    names["assistant"].close()
    answer = names["answer"]
    assert (answer.source, answer.reason) == ("fused", None)
    assert answer.positions > 0
    assert capsys.readouterr().out.endswith(f" fused False {answer.positions} {answer.bytes_received}\n")


def test_the_commands_that_set_the_nodes_up_work_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloud_node import CloudConfig
    from edge_node import EdgeConfig
    from ops.cli import app

    monkeypatch.chdir(tmp_path)
    note, _, _ = first_question()
    (tmp_path / "note.txt").write_text(note, encoding="utf-8")
    commands = [
        line.partition("#")[0].split() for line in README.splitlines() if line.startswith("    kvwire ")
    ]
    setting_up = [words[1:] for words in commands if words[1] in ("init", "certs", "documents")]
    assert [words[0] for words in setting_up] == ["init", "certs", "documents", "init"]
    for words in setting_up:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    cloud, edge = CloudConfig.load("cloud.toml"), EdgeConfig.load("edge.toml")
    (export,) = blocks("toml")
    assert tomllib.loads(export)["export"] == {
        "profile": cloud.export.profile,
        "max_positions": cloud.export.max_positions,
        "allow_relay": cloud.export.allow_relay,
        "allow_search": cloud.export.allow_search,
    }
    assert edge.cloud.address == "cloud.example:7443"
    edge.check_files()


def test_every_make_target_that_the_readme_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake ([a-z-]+)\b(?=`|\s{2,}#)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_number_with_an_interval_stands_in_the_results_too() -> None:
    pages = (ROOT / "docs" / "results.md", *(ROOT / "docs" / "results").glob("*.md"))
    results = " ".join(" ".join(page.read_text(encoding="utf-8").split()) for page in pages)
    numbers = set(re.findall(r"-?[0-9.]+ \[-?[0-9.]+, [0-9.]+\]", " ".join(README.split())))
    assert len(numbers) > 15
    assert {number for number in numbers if number not in results} == set()


def test_make_results_has_places_for_its_tables() -> None:
    from ops.tables import check_marks

    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    pairs = re.findall(r"^PAIRS \?= (.+)$", makefile, re.MULTILINE)[0].split()
    assert sorted(pairs) == sorted(page.stem for page in (ROOT / "docs" / "results").glob("*.md"))
    for pair in pairs:
        page = ROOT / "docs" / "results" / f"{pair}.md"
        places = re.findall(r"^<!-- kvwire eval (\S+) -->$", page.read_text(encoding="utf-8"), re.MULTILINE)
        for place in places:
            assert place in makefile
            check_marks(page, place)


def test_the_first_screen_of_the_readme_is_sixty_lines_with_controls_and_what_leaves_the_cloud() -> None:
    first = "\n".join(README.splitlines()[:60])
    for said in (
        "make demo",
        "make test",
        "control:",
        "not an encryption",
        "docs/results.md",
        "docs/design.md",
    ):
        assert said in first, said
