"""Proofs that need real models: an answer that leaks into the prompt is found."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.progress import Progress

from fuser.bundle.bundle import Bundle
from fuser.bundle.config import BundleConfig
from fuser.heads.compact import CompactConfig
from fuser.kv.geometry import Geometry, LayerMap
from fuser.lab.c2c.bundle import chat_style
from fuser.lab.evaluate.choice.evaluation import Budget, ChoiceEvaluation
from fuser.models.directory import model_ref
from fuser.models.load import load_model
from tests.fuser.lab.evaluate.choices import make_choices

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real,
    pytest.mark.skipif(os.environ.get("KVWIRE_TEST_REAL") != "1", reason="set KVWIRE_TEST_REAL=1"),
]


@pytest.mark.timeout(600)
def test_an_answer_planted_in_the_prompt_is_found_and_without_it_is_not(
    real_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    folders = dict(zip(("sharer", "receiver"), real_pair, strict=True))
    sharer, receiver = (load_model(folder) for folder in real_pair)
    theirs, ours = Geometry.of(sharer[0].config), Geometry.of(receiver[0].config)
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
        budget = Budget(max_new_tokens=8)
        evaluation = ChoiceEvaluation(bundle, receiver, sharer, items, (), tmp_path / name, budget=budget)
        with Progress(disable=True) as progress:
            found = list(evaluation.run(["sharer", "receiver"], progress))
        for row in ("sharer", "receiver"):
            marks = [p.right["lenient"] for p in found if p.row == row]
            shares[name, row] = sum(marks) / len(marks)
    assert shares["leaky", "sharer"] >= 0.9, shares
    assert shares["leaky", "receiver"] >= 0.6, shares  # 135M parameters: finds most
    assert max(shares["clean", row] for row in ("sharer", "receiver")) <= 0.6, shares
