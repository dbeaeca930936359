"""The recipe that a pair is made by: TOML that is read back as it was, and steps that models of every family take."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from fuser.bundle.bundle import Bundle
from fuser.heads.translate import TranslateConfig
from fuser.lab.overrides import merged
from fuser.lab.pair.models import check_pair
from fuser.lab.pair.recipe import recipe_of, to_toml
from fuser.lab.pair.sizes import Counts, Pace, sizes_of
from fuser.lab.pair.texts import read_corpus, write_items
from fuser.lab.train.making import make
from fuser.lab.train.recipe import Recipe
from tests.fuser.lab.pair.families import GOOD, save_model
from tests.fuser.lab.pair.test_texts import write_notes

PACE = Pace(read=1.0, draft=3.0, step=2.0, stage=10.0, answer=0.1, solve=0.6, product=10.0, positions=200.0)
COUNTS = Counts(train=900, plans=90, held_out=90, fitting=900, outputs=1000, layer=64, layers=4)


def recipe(
    sharer: Path, receiver: Path, folder: Path, drafts: bool = True, fitting: int = 900
) -> dict[str, Any]:
    models = check_pair(sharer, receiver)
    head = models.translate(["The ledger lies in the box."], models.layers(10_000), 32)
    return recipe_of(
        models,
        (str(sharer), str(receiver)),
        folder,
        folder / "bundle",
        sizes_of(60, PACE, replace(COUNTS, fitting=fitting), drafts),
        head,
        drafts=drafts,
        device="cpu",
        dtype="float32",
        batch=4,
        seed=1,
    )


@pytest.mark.parametrize("drafts", [True, False])
def test_the_recipe_is_toml_with_the_stages_of_a_bundle(
    drafts: bool, tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path
) -> None:
    table = recipe(tiny_sharer, tiny_receiver, tmp_path, drafts)
    assert tomllib.loads(to_toml(table)) == table
    stages = Recipe.of(table).stages
    kinds = ["fit", "train", "calibrate", "train", "calibrate", "profile"]
    assert [stage.kind for stage in stages] == kinds + ["profile"] * drafts
    assert [stage.config.profile.drafts for stage in stages[5:]] == [False, True][: 1 + drafts]
    assert [stage.config.drafts for stage in stages[1:5]] == [False, False, drafts, drafts]
    prefix = table["translate"]["prefix_positions"]
    assert stages[1].config.translate == TranslateConfig(32, prefix, receiver_positions=2)


def test_text_with_quotes_breaks_and_control_characters_is_written_as_toml() -> None:
    table = {
        "a": 'x "y"\n\\ \x7f \x01 ü',
        "b": [0.5, 2.0],
        "c": {"d": [["k", ""]]},
        "e": [{"f": {"g": True}}],
    }
    assert tomllib.loads(to_toml(table)) == table


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "mistral", "mixtral", "phi3"])
def test_a_model_of_every_family_takes_a_training_step_on_both_sides(family: str, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", GOOD[family]())
    corpus = read_corpus(write_notes(tmp_path / "notes"))
    write_items(corpus.train, tmp_path / "data" / "train.jsonl")
    write_items(corpus.plans, tmp_path / "data" / "plans.jsonl")
    few = {
        "lead": "Read.\n",
        "translate": {"prefix_positions": 0},
        "answer": {"steps": 1, "evaluate_every": 1, "validation": 2},
        "sources": {"texts": {"documents": 8}, "plans": {"documents": 2}},
    }
    table = merged(recipe(model, model, tmp_path, fitting=0), few) | {
        "stage": [{"name": "answers", "kind": "train"}]
    }
    with Progress(disable=True) as progress:
        done = make(Recipe.of(table), progress)
    assert done["finished"] and Bundle.load(done["output"]).translate is not None
