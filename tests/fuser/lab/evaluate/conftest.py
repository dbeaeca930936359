"""Questions over small documents, and an evaluation of them by the tiny pair."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fuser.lab.evaluate.documents import DocumentEvaluation
    from fuser.lab.evaluate.questions import DocumentQuestion


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
    return list(draw([*items, short, foreign], 21, 1).questions)


@pytest.fixture
def evaluation(
    documents: "list[DocumentQuestion]",
    tiny_bundle: Path,
    tiny_sharer: Path,
    tiny_receiver: Path,
    tmp_path: Path,
) -> "Callable[..., DocumentEvaluation]":
    """Makes an evaluation; keywords replace the questions, the work folder and what `Extras` holds."""
    from fuser.bundle.bundle import Bundle
    from fuser.lab.evaluate.documents import DocumentEvaluation
    from fuser.lab.evaluate.models import Model
    from fuser.lab.evaluate.prediction import PredictionLog
    from fuser.lab.evaluate.rows import Extras

    def make(
        name: str = "run",
        batch: int = 16,
        questions: "list[DocumentQuestion]" = documents,
        bundle: "Bundle | None" = None,
        **extras: Any,
    ) -> "DocumentEvaluation":
        return DocumentEvaluation(
            bundle or Bundle.load(tiny_bundle),
            Model(str(tiny_sharer)),
            Model(str(tiny_receiver)),
            questions,
            PredictionLog(tmp_path / name / "predictions.jsonl"),
            tmp_path / "read",
            Extras(**extras),
            batch,
        )

    return make
