"""The learnt selection: fitted on where answers stand, and the same in training as in the service."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress

from fuser.bundle.bundle import Bundle
from fuser.config import from_dict
from fuser.heads.selection import Scorer, SelectionConfig
from fuser.lab.data.load import load
from fuser.lab.train.cache import cache_folder
from fuser.lab.train.config import TrainConfig
from fuser.lab.train.document import DocumentTask
from fuser.lab.train.prepare import scorer_of
from fuser.lab.train.selection import answer_at, fit_scorer, load_scorer, save_scorer
from fuser.lab.train.sharer_reading import SharerReading
from fuser.models.load import load_model
from fuser.prompts.prompt import PromptStyle
from fuser.sharer import Sharer
from kvwire.identity import ModelRef
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from ops.chaos.tiny_bundle import SHARER_PROMPT
from tests.fuser.lab.train.conftest import HEADS
from tests.fuser.lab.train.tiny_setting import tiny_setting

Fitted = tuple[Scorer, dict[str, Any], int]


class Planted(SharerReading):
    """The tiny Sharer, whose random heads know nothing; its first head is made to point at the answers."""

    answers: dict[str, tuple[str, ...]]

    def attention(self, document: str, question: str) -> tuple[torch.Tensor, torch.Tensor]:
        attention, spans = super().attention(document, question)
        at = answer_at(document, spans, self.answers[question + document])
        attention[0, 0] = torch.where(at, 0.3, 0.6 * attention[0, 0])
        attention[0, 1, -40:] = 0.9  # a loud one that knows nothing
        return attention, spans


@pytest.fixture(scope="module")
def fitted(tiny_sharer: Path) -> Fitted:
    """A scorer for the tiny Sharer, what its fit found, and the Sharer's heads in a layer."""
    model, tokenizer = load_model(tiny_sharer)
    reading = Planted(
        model, tokenizer, from_dict(PromptStyle, SHARER_PROMPT), SelectionConfig(first_layer=0.0)
    )
    items = load("records:train", "document", 120, 1)
    reading.answers = {q.text + item.document: q.answers for item in items for q in item.questions}
    with Progress(disable=True) as progress:
        return *fit_scorer(items, reading, 120, 1, progress), model.config.num_attention_heads


def test_the_fit_finds_the_head_that_points_at_answers(fitted: Fitted) -> None:
    scorer, found, heads = fitted
    assert len(scorer.weight) % heads == 0
    assert int(scorer.weight.argmax()) == 0
    assert found["questions"] + found["held_back"] == 120
    within = found["answer_within"]
    assert within["learnt"]["16"] > within["last"]["16"] + 0.3
    assert within["learnt"]["32"] >= within["learnt"]["16"]


def test_training_chooses_the_positions_that_the_service_chooses(
    fitted: Fitted, tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path
) -> None:
    scorer, _, heads = fitted
    file = tmp_path / "selection.safetensors"
    save_scorer(scorer, file)
    selection = {"positions": 8, "rule": "learnt", "heads": heads, "first_layer": 0.0}
    tables = {
        "lead": HEADS["lead"],
        "translate": HEADS["translate"],
        "selection": selection,
        "scorer": str(file),
    }
    items = load("records:train", "document", 12, 1)
    setting = tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, tables)
    task = DocumentTask(setting)
    with Progress(disable=True) as progress:
        task.start(progress)
    head = setting.heads["translate"].eval()
    sharer = Sharer(*load_model(tiny_sharer), Bundle(setting.bundle, **setting.heads))  # type: ignore[arg-type]
    batch = task.epoch(4, 0)[0]
    codes: list[torch.Tensor] = []
    for document, question in batch.own:
        sections = (
            Section(Role.DOCUMENT, Visibility.CLOUD, text=document.text),
            Section(Role.QUESTION, Visibility.SHARED, text=question.text),
        )
        cut = sharer.layout(sections, SliceKind.EXCERPT, 99)
        sharer.run(cut, lambda _, code: codes.append(code))
    with torch.no_grad():
        expanded = head.expand(torch.stack(codes))  # type: ignore[operator]
        torch.testing.assert_close(task.slice(batch.own), expanded, atol=1e-3, rtol=1e-3)


def test_a_cache_belongs_to_one_selection() -> None:
    sharer, style = ModelRef("tiny", "1" * 64), PromptStyle("", {}, "")
    selection = SelectionConfig(rule="learnt", heads=2)
    one, other = Scorer(8), Scorer(8)
    other.weight.data[0] = 2.0
    folders = {
        cache_folder(sharer, style, selection, "x", "float32", scorer) for scorer in (one, other, None)
    }
    assert len(folders) == 3


def test_answers_are_found_at_the_positions_that_read_them() -> None:
    spans = torch.tensor([[0, 3], [3, 7], [7, 11], [11, 12]])
    assert answer_at("The key, old.", spans, ("key",)).tolist() == [False, True, False, False]
    assert answer_at("The key, old.", spans, ("key, o",)).tolist() == [False, True, True, False]
    assert not answer_at("The key, old.", spans, ("lock", "")).any()


def test_a_learnt_selection_has_to_be_named(tmp_path: Path) -> None:
    base = {
        "sharer": "a",
        "receiver": "b",
        "sharer_prompt": SHARER_PROMPT,
        "receiver_prompt": SHARER_PROMPT,
        "sources": [{"source": "records:train", "documents": 1}],
        "work": "w",
        "output": "o",
        "translate": {"code_dim": 4},
        "selection": {"rule": "learnt", "heads": 2},
    }
    with pytest.raises(ValueError, match="a stage of kind fit"):
        scorer_of(from_dict(TrainConfig, base))
    with pytest.raises(ValueError, match="holds no selection"):
        load_scorer(tmp_path / "nothing.safetensors")
