"""The cloud node of `tests.cloud_fixture` with more documents, and an edge that talks to it over mutual TLS."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from edge_node import EdgeConfig
    from fuser.receiver import Receiver
    from fuser.sharer import Sharer
    from tests.cloud_fixture import CloudNode

CANARIES = {
    "secret-1": "The vault of Ormendal opens with quillfeather-9317-zanzibar after Umbriel Vantongeren's toast.",
    "secret-2": "密码是紫罗兰河马七千三百一十九号。Die Losung heißt Zwölfkämpferübungsplatzänderung 🦑🧿.",
}
"""Documents of tenant acme whose every word would be noticed on the wire."""


@pytest.fixture(scope="session")
def filled_cloud(cloud: "CloudNode") -> "CloudNode":
    """The cloud node, with the documents of the fifty prompts and the canaries."""
    from cloud_node.documents import Documents
    from tests.e2e.prompts import DOCUMENTS

    documents = Documents(f"sqlite:///{cloud.directory / 'documents.db'}")
    for document_id, text in (DOCUMENTS | CANARIES).items():
        documents.add("acme", document_id, text, None, replace=True)
    documents.add("other", "secret-3", CANARIES["secret-1"], None, replace=True)
    documents.close()
    return cloud


@pytest.fixture(scope="session")
def edge_config(filled_cloud: "CloudNode", tiny_receiver: Path, tiny_bundle: Path) -> "EdgeConfig":
    """An edge of tenant acme; `raw`, at most 12 document positions."""
    from tests.edge_node.toml import edge_of

    cloud, pair = filled_cloud, (tiny_receiver, tiny_bundle)
    return edge_of(cloud.certificates, cloud.address, *pair, tokens=12, max_positions=12, deadline_s=60.0)


@pytest.fixture(scope="session")
def local_sharer(tiny_sharer: Path, tiny_bundle: Path) -> "Sharer":
    """The Sharer of the cloud node, in this process."""
    from fuser.bundle.bundle import Bundle
    from fuser.models.load import load_model
    from fuser.sharer import Sharer

    return Sharer(*load_model(tiny_sharer), Bundle.load(tiny_bundle))


@pytest.fixture(scope="session")
def local_receiver(tiny_receiver: Path, tiny_bundle: Path) -> "Receiver":
    """The Receiver of the edge."""
    from fuser.bundle.bundle import Bundle
    from fuser.models.load import load_model
    from fuser.receiver import Receiver

    return Receiver(*load_model(tiny_receiver), Bundle.load(tiny_bundle))


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Where a test's edge keeps what crossed the wire."""
    return tmp_path / "wire.bin"


@pytest.fixture
def captured_config(edge_config: "EdgeConfig", capture: Path) -> "EdgeConfig":
    """`edge_config` with a capture."""
    return dataclasses.replace(edge_config, capture=str(capture))


@pytest.fixture
def bench(
    tiny_sharer: Path, tiny_receiver: Path, tiny_bundle: Path, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Runs `kvwire bench NAME` with the tiny pair; gives its report, once nothing it made is left."""

    def run(name: str, *how: str, timeout_s: float) -> dict[str, Any]:
        out, cache = tmp_path / "out.json", tmp_path / "cache"
        pair = ["--sharer", str(tiny_sharer), "--receiver", str(tiny_receiver), "--bundle", str(tiny_bundle)]
        done = subprocess.run(
            [sys.executable, "-m", "ops.cli", "bench", name, *pair, *how, "--json", str(out)],
            env=os.environ | {"KVWIRE_CACHE": str(cache)},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert done.returncode == 0, done.stderr
        assert list((cache / "bench").iterdir()) == []
        report: dict[str, Any] = json.loads(out.read_text())
        return report

    return run
