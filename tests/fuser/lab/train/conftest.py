"""Items for the tasks of the tiny pair."""

from pathlib import Path

import pytest

from fuser.lab.data.load import load
from fuser.lab.train.sources import AnyItem
from fuser.lab.train.task import Setting
from tests.fuser.lab.train.tiny_setting import PROMPTS, tiny_setting

HEADS = {
    "lead": "Read.\n",
    "translate": {"code_dim": 24, "prefix_positions": 6},
    "fuse": {"rank": 8, "inner": 12},
}


@pytest.fixture(scope="session")
def items() -> tuple[AnyItem, ...]:
    """Twelve documents with questions, and six shared prompts."""
    return (*load("records:train", "document", 12, 1), *PROMPTS)  # type: ignore[arg-type]


@pytest.fixture
def setting(tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, items: tuple[AnyItem, ...]) -> Setting:
    """All heads, untrained."""
    return tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, HEADS)
