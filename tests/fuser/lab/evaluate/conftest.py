"""Questions over small documents, and evaluations by the tiny pair."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fuser.lab.evaluate.evaluation import Given
    from fuser.lab.evaluate.questions import DocumentQuestion

    Make = Callable[..., Given]


@pytest.fixture(scope="session")
def documents() -> "list[DocumentQuestion]":
    """18 questions over records, two over a document shorter than an excerpt, one in another script."""
    from fuser.lab.data.document import Item, Question
    from fuser.lab.data.load import load
    from fuser.lab.evaluate.questions import draw

    items = load("records:heldout", "document", 6, 3, for_training=False)
    short = Item("notes", "Bay 14.", (Question("Which bay?", ("Bay 14",)), Question("Where?", ("Bay 14",))))
    foreign = Item(
        "notes", "图书馆在河边。👩‍🔬 Ilse Brandvik keeps the key.", (Question("谁有钥匙？", ("Ilse",)),)
    )
    return draw([*items, short, foreign], 21, 1)


@pytest.fixture
def given(tiny_bundle: Path, tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path) -> "Make":
    """Makes the tiny pair with what it reads in tmp_path / "read"; keywords replace a part of it."""
    from fuser.bundle.bundle import Bundle
    from fuser.lab.evaluate.evaluation import Given
    from fuser.lab.evaluate.models import Model

    def make(**changed: Any) -> "Given":
        read = tmp_path / "read"
        read.mkdir(exist_ok=True)
        usual = {
            "bundle": Bundle.load(tiny_bundle),
            "sharer": Model(str(tiny_sharer)),
            "receiver": Model(str(tiny_receiver)),
            "work": read,
        }
        return Given(**(usual | changed))

    return make
