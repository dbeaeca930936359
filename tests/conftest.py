"""Fixtures that every test may use. Nothing here imports torch until a test asks for a model."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from ops.certs import Certificates

pytest_plugins = ("tests.cloud_fixture", "tests.postgres_fixture")

# Before torch and the tokenizers start: one thread, so that results do not depend on the machine's load.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# A loaded machine is no fault of what is tested.
settings.register_profile("loaded", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded")

# Children import this tree, wherever they run.
ROOT = Path(__file__).resolve().parent.parent
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(ROOT), str(ROOT / "proto"), os.environ.get("PYTHONPATH")))
)

WITH_RAY = (
    "tests/e2e/",
    "tests/cloud_node/test_deployment.py",
    "tests/cloud_node/test_ends.py",
    "tests/cloud_node/test_gateway.py",
    "tests/cloud_node/test_node.py",
    "tests/ops/test_bench_service.py",
    "tests/ops/test_train.py::test_two_workers",
)
"""Where tests start Ray: one worker has them all, so that one cloud node serves them and two Rays rarely run."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`: a file is the work of one worker, so that what its tests share is made once."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "Ray" if nodeid.startswith(WITH_RAY) else super()._split_scope(nodeid)

    return ByFile(config, log)


@pytest.fixture(scope="session")
def tiny_sharer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a random Qwen2 with its tokenizer: 4 layers, 2 key/value heads of 16."""
    from ops.chaos.tiny import save_tiny_sharer

    return save_tiny_sharer(tmp_path_factory.mktemp("models") / "tiny-sharer")


@pytest.fixture(scope="session")
def tiny_receiver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a random Llama with another tokenizer: 6 layers, 1 key/value head of 16."""
    from ops.chaos.tiny import save_tiny_receiver

    return save_tiny_receiver(tmp_path_factory.mktemp("models") / "tiny-receiver")


@pytest.fixture(scope="session")
def real_pair() -> tuple[Path, Path]:
    """Directories of the real Sharer and Receiver; fetched first where KVWIRE_TEST_REAL=1, else the test is skipped."""
    from fuser.models.directory import ModelError
    from ops.demo.pair import RECEIVER, SHARER
    from ops.models.fetch import find, resolve

    locate = resolve if os.environ.get("KVWIRE_TEST_REAL") == "1" else find
    try:
        return locate(SHARER), locate(RECEIVER)
    except ModelError as error:
        pytest.skip(f"{error}, or set KVWIRE_TEST_REAL=1")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> "Certificates":
    """A development CA, the cloud's certificate for loopback, and edges `acme` and `other`."""
    from ops.certs import make_certificates

    return make_certificates(tmp_path_factory.mktemp("certificates") / "tls", ["acme", "other"])


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_sharer: Path, tiny_receiver: Path) -> Path:
    """Path of a random bundle for the tiny pair: shared slices and excerpts of up to 12 positions."""
    from ops.chaos.tiny_bundle import save_tiny_bundle

    return save_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", tiny_sharer, tiny_receiver)
