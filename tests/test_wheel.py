"""The wheel with each of its extras in an environment of its own: `make test-wheel`. Takes minutes and gigabytes."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.wheel,
    pytest.mark.timeout(3_600),
    pytest.mark.skipif("KVWIRE_TEST_WHEEL" not in os.environ, reason="make test-wheel runs it"),
]

LIGHT = "import edge_node, fuser, kvwire\nfor name in edge_node.__all__: getattr(edge_node, name)\n"
CALLS = {
    "edge": (
        LIGHT + "import edge_node.api, importlib.util\nassert not importlib.util.find_spec('ray')",
        "edge --help",
        "doctor",
    ),
    "cloud": ("import cloud_node.node, cloud_node.deployment", "cloud --help", "certs tls --tenant acme"),
    "train": ("import fuser.lab.train.run, datasets, matplotlib, tensorboard", "train --help", "models list"),
    "demo": ("import cloud_node.deployment, edge_node.api", "demo --help", "certs tls --tenant acme"),
    "cloud,postgres": ("import cloud_node.documents, psycopg", "documents --help", "init cloud"),
    "cloud,documents": (
        "import cloud_node.document_files, pypdf, mammoth",
        "documents add --help",
        "init cloud",
    ),
}
"""Extras -> Python that needs them, a help, a call."""


def run(*command: str | Path, cwd: Path) -> str:
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-3_000:]}\n{done.stderr[-3_000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a copy of the sources, so that the build leaves nothing behind."""
    directory = tmp_path_factory.mktemp("wheel")
    copy = directory / "kvwire"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "dist", "site", "runs", "*.egg-info")
    )
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", directory, copy, cwd=directory)
    (built,) = directory.glob("kvwire-*.whl")
    return built


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Path]:
    """Its folder of programs; a gigabyte, so it does not stay."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    yield tmp_path / "venv" / "bin"
    shutil.rmtree(tmp_path / "venv")


def test_a_wheel_has_the_packages_and_nothing_else(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    (information,) = (top for top in tops if top.endswith(".dist-info"))
    assert tops - {information} == {"cloud_node", "edge_node", "fuser", "kvwire", "ops"}


@pytest.mark.parametrize("extras", CALLS)
def test_an_extra_brings_what_it_needs(extras: str, wheel: Path, environment: Path, tmp_path: Path) -> None:
    constraints = ROOT / "constraints.txt"
    # torch alone first: the index of the machine then decides which build it is.
    for what in ("torch", f"{wheel}[{extras}]"):
        run(environment / "pip", "install", "-q", "-c", constraints, what, cwd=tmp_path)
    code, helped, call = CALLS[extras]
    run(environment / "python", "-W", "error", "-c", code, cwd=tmp_path)
    assert "Usage" in run(environment / "kvwire", *helped.split(), cwd=tmp_path)
    run(environment / "kvwire", *call.split(), cwd=tmp_path)


def test_the_example_for_langchain_runs_beside_langchain(environment: Path, tmp_path: Path) -> None:
    """langchain-openai brings 14 packages that nothing else here needs, so it is installed for this test alone."""
    run(
        environment / "pip", "install", "-q", "-c", ROOT / "constraints.txt", "langchain-openai", cwd=tmp_path
    )
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    here = Path(run(environment / "python", "-c", where, cwd=tmp_path).strip()) / "here.pth"
    here.write_text(sysconfig.get_path("purelib"), encoding="utf-8")  # what the tests need is there already
    wanted = "tests/edge_node/test_examples.py::test_langchains_chat_model_asks_through_the_local_api"
    said = run(environment / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", wanted, cwd=ROOT)
    assert "1 passed" in said
