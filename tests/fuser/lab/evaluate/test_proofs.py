"""The evaluation cannot fool us: a transfer that must be there is seen, and one that cannot be there is not.

Sharer and Receiver are one real model and the slice is its own KV, so what can be had is known beforehand.
"""

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fuser.bundle.bundle import Bundle
from fuser.bundle.config import BundleConfig
from fuser.heads.compact import CompactConfig
from fuser.kv.geometry import Geometry, LayerMap
from fuser.lab.c2c.bundle import chat_style
from fuser.lab.data.load import load
from fuser.lab.evaluate.choices import ChoiceTask
from fuser.lab.evaluate.documents import ROWS, DocumentEvaluation
from fuser.lab.evaluate.evaluation import Given
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.questions import DocumentQuestion, draw
from fuser.lab.evaluate.report import summarise
from fuser.lab.evaluate.score import marks
from fuser.models.directory import model_ref
from fuser.models.load import load_model
from tests.fuser.lab.evaluate.asking import ask as ask_rows
from tests.fuser.lab.evaluate.choices import make_choices
from tests.identity import save_identity_bundle

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        os.environ.get("KVWIRE_TEST_REAL") != "1", reason="two minutes; set KVWIRE_TEST_REAL=1"
    ),
]

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def identity(real_pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An identity bundle of the real Receiver, its excerpts as long as any document here."""
    return save_identity_bundle(tmp_path_factory.mktemp("identity") / "bundle", real_pair[1])


@pytest.fixture(scope="module")
def ask(identity: Path, real_pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Asks questions in rows: gives the exact matches of each row, and their differences."""
    model = Model(str(real_pair[1]))

    def run(questions: list[DocumentQuestion], *rows: str, bundle: Bundle | None = None) -> dict[str, Any]:
        work = tmp_path_factory.mktemp("evaluation")
        task = DocumentEvaluation(Given(bundle or Bundle.load(identity), model, model, work), questions)
        found = ask_rows(task, work, *rows)
        report = summarise(found.values(), ROWS.lines(rows), ROWS, len(questions))
        points = {row["row"]: row["metrics"]["exact_match"]["point"] for row in report["rows"]}
        return points | report["differences"]["exact_match"]

    return run


def records(count: int) -> list[DocumentQuestion]:
    """Questions over generated records that no model has ever seen."""
    return draw(load("records:heldout", "document", count, 5, for_training=False), count, 5)


def test_the_true_slice_of_the_same_model_has_most_of_what_text_has_and_a_strangers_has_not(ask: Ask) -> None:
    found = ask(records(32), "receiver", "text", "fused", "mismatched")
    gap = found["text"] - found["receiver"]
    assert gap > 0.15, f"the model cannot read its text, so there is nothing to see: {found}"
    assert abs(found["fused"] - found["text"]) <= 0.1
    assert found["transfer: fused - mismatched"]["point"] >= 0.7 * gap
    assert found["transfer: fused - mismatched"]["low"] > 0


def test_a_planted_leak_scores_near_every_point_and_shuffled_labels_score_at_chance(
    real_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    leaks = [(q, f"Question: {q.question}\nAnswer: {q.answers[0]}\n") for q in records(16)]
    planted = [replace(q, document=f"{leak}\n{q.document}\n{leak}") for q, leak in leaks]
    model = Model(str(real_pair[0]))  # the Receiver is too small to copy whatever stands before it
    bundle = Bundle.load(save_identity_bundle(tmp_path / "bundle", real_pair[0]))
    found = ask_rows(DocumentEvaluation(Given(bundle, model, model, tmp_path), planted), tmp_path, "text")
    answers = [q.answers for q in planted]
    random.Random(0).shuffle(answers)
    wrong = {q.id: other for q, other in zip(planted, answers, strict=True)}
    shuffled = [replace(p, right=marks(p.text, wrong[p.item])) for p in found.values()]
    true, false = (
        summarise(predictions, ROWS.lines(["text"]), ROWS, 16)["rows"][0]["metrics"]["exact_match"]["point"]
        for predictions in (found.values(), shuffled)
    )
    chance = sum(wrong[q.id] == q.answers for q in planted) / len(planted)
    assert true >= 0.9
    assert false <= chance + 0.1


def test_a_random_fuser_scores_as_its_mismatched_row(ask: Ask, identity: Path) -> None:
    bundle = Bundle.load(identity)
    generator = torch.Generator().manual_seed(0)
    weight = bundle.require_translate().get_parameter("widen.weight")
    spread = weight.shape[-1] ** -0.5
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=generator) * spread)
    found = ask(records(16), "fused", "mismatched", bundle=bundle)
    transfer = found["transfer: fused - mismatched"]
    assert transfer["low"] <= 0 <= transfer["high"]
    assert found["fused"] <= 0.1


@pytest.mark.timeout(600)
def test_an_answer_planted_in_the_prompt_is_found_and_without_it_is_not(
    real_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    folders = dict(zip(("sharer", "receiver"), real_pair, strict=True))
    sharer, receiver = (Model(str(folder)) for folder in real_pair)
    theirs, ours = (Geometry.of(load_model(folder)[0].config) for folder in real_pair)
    config = BundleConfig(
        sharer=model_ref(folders["sharer"]),
        receiver=model_ref(folders["receiver"]),
        sharer_geometry=theirs,
        receiver_geometry=ours,
        sharer_prompt=chat_style(folders["sharer"]),
        receiver_prompt=chat_style(folders["receiver"]),
        fuse=CompactConfig(LayerMap.terminal(ours.layers, theirs.layers), rank=2, inner=2),
    )
    bundle = Bundle(config, config.new_fuse())
    clean = make_choices(16, seed=12)
    leaky = [replace(one, question=f"{one.question} (The correct answer is {one.letter}.)") for one in clean]
    shares = {}
    for name, items in (("clean", clean), ("leaky", leaky)):
        task = ChoiceTask(Given(bundle, sharer, receiver, tmp_path), items, tmp_path, max_new_tokens=8)
        found = ask_rows(task, tmp_path / name, "sharer", "receiver")
        for row in ("sharer", "receiver"):
            right = [p.right["lenient"] for (line, _), p in found.items() if line == row]
            shares[name, row] = sum(right) / len(right)
    assert shares["leaky", "sharer"] >= 0.9, shares
    assert shares["leaky", "receiver"] >= 0.6, shares  # 135M parameters: finds most
    assert max(shares["clean", row] for row in ("sharer", "receiver")) <= 0.6, shares
