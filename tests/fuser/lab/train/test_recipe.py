"""The recipe of a bundle: strict, and refused before anything is loaded."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fuser.bundle.bundle import Bundle
from fuser.config import BadConfig
from fuser.lab.train.config import DialsConfig, TrainConfig
from fuser.lab.train.recipe import Recipe

FUSER = Path(__file__).parents[4] / "fuser"
DOCUMENTS, DRAFTS, EVERYDAY, QWEN, TWO_TASKS, TWO_TASKS_DRAFTS = (
    FUSER / "lab" / "recipes" / f"{name}.toml"
    for name in ("documents", "drafts", "everyday", "qwen", "two_tasks", "two_tasks_drafts")
)
BUNDLES = FUSER / "bundles"


def _load(tmp_path: Path, old: str, new: str) -> Recipe:
    texts = [recipe.read_text(encoding="utf-8") for recipe in (DOCUMENTS, DRAFTS, EVERYDAY)]
    text = next(text for text in texts if old in text)
    path = tmp_path / "recipe.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return Recipe.load(path)


def _config(recipe: Recipe, name: str) -> TrainConfig:
    return next(stage.config for stage in recipe.stages if stage.name == name)


def test_each_stage_starts_from_the_bundle_before_it_and_chooses_by_the_selection_before_it() -> None:
    recipe = Recipe.load(DOCUMENTS)
    assert [(stage.name, stage.kind) for stage in recipe.stages] == [
        ("selection", "fit"),
        ("start", "train"),
        ("passages", "train"),
        ("again", "train"),
        ("names", "train"),
        ("codecs", "calibrate"),
        ("through_codecs", "train"),
        ("final_codecs", "calibrate"),
    ]
    fit, start, *more = (stage.config for stage in recipe.stages)
    assert (fit.init, start.init, fit.scorer) == ("", "", "")
    assert [config.init for config in more] == [config.output for config in (start, *more[:-1])]
    assert {config.scorer for config in (start, *more)} == {"runs/documents/selection/selection.safetensors"}


def test_a_stage_has_the_keys_of_the_base_but_for_those_it_changes() -> None:
    recipe = Recipe.load(DOCUMENTS)
    start, names = _config(recipe, "start"), _config(recipe, "names")
    assert (start.answer.steps, start.answer.decay_steps, names.answer.steps) == (700, 1600, 1000)
    assert start.answer.batch == names.answer.batch == 16
    assert [source.continuations for source in start.sources[:3]] == [2, 2, 0]
    assert [
        source.source for source in names.sources if source.source not in {s.source for s in start.sources}
    ] == [
        "records:coined",
        "records:heldout_coined",
    ]
    assert _config(Recipe.load(TWO_TASKS), "questions").fuse is None


@pytest.mark.parametrize(
    ("recipe", "bundle"),
    [
        (DRAFTS, "qwen2.5-coder-0.5b--smollm2-135m"),
        (EVERYDAY, "qwen2.5-coder-0.5b--smollm2-135m"),
        (TWO_TASKS_DRAFTS, "qwen2.5-coder-1.5b--smollm2-135m"),
    ],
)
def test_the_recipe_of_a_bundle_that_ships_makes_its_heads(recipe: Path, bundle: str) -> None:
    shipped = Bundle.load(BUNDLES / bundle).config
    trained = [stage.config for stage in Recipe.load(recipe).stages if stage.kind == "train"]
    for config in trained:
        for name in ("sharer_prompt", "receiver_prompt", "translate", "selection"):
            assert getattr(config, name) == getattr(shipped, name)
    layers = shipped.receiver_geometry.layers, shipped.sharer_geometry.layers
    assert trained[-1].fuse_config(*layers) == shipped.fuse
    bases = shipped.codec_bases
    assert bases is not None
    calibrated = [stage.config for stage in Recipe.load(recipe).stages if stage.kind == "calibrate"][-1]
    assert calibrated.calibrate.rates == bases.rates
    assert set(calibrated.dials.code_dims) <= set(bases.code_widths)


def test_values_of_the_command_line_replace_those_of_the_base_or_of_a_stage() -> None:
    values = [
        "stage.names.answer.steps=5",
        "answer.batch = 8",
        "sources.coined.documents=3",
        "sharer=some-model",
    ]
    recipe = Recipe.load(DOCUMENTS, [*values, "stage.final_codecs.calibrate.rates=[2, 1]"])
    names, passages = _config(recipe, "names"), _config(recipe, "passages")
    assert (names.answer.steps, passages.answer.steps) == (5, 700)
    assert names.answer.batch == passages.answer.batch == 8
    assert [len(_config(recipe, name).sources) for name in ("passages", "names")] == [7, 8]
    assert names.sharer == "some-model"
    assert _config(recipe, "final_codecs").calibrate.rates == (2.0, 1.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("answer.setps=5", "unknown key answer.setps"),
        ("stage.names.answer.setps=5", "stage names: unknown key answer.setps"),
        ("stage.name.answer.steps=5", "no 'name' in that list"),
        ("stage.names=5", "no 'names' in that list"),
        ("dials.positions.first=5", "no 'first' in that list"),
        ("seed.of=5", "'of' would be a key of something that is no table"),
        ("answer.steps", "give key=value"),
        ("answer..steps=1", "give key=value"),
        ("answer.steps=many", "answer.steps: expected int, got str"),
    ],
)
def test_a_value_of_the_command_line_that_fits_nowhere_is_refused(value: str, message: str) -> None:
    with pytest.raises(BadConfig, match=message.replace(".", r"\.")):
        Recipe.load(DOCUMENTS, [value])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ridge = 0.02", "rigde = 0.02", "unknown key rigde"),
        ("[answer]\nsteps", "[answer]\nstep", "stage selection: unknown key answer.step"),
        ("\nsteps = 700", "\nsteps = 0", "steps must be at least 1"),
        ("decay_steps = 1600", "decay_steps = 600", "decay_steps must be 0 or at least steps, 700"),
        ("text_share = 0.03", "text_share = 1.5", "text_share"),
        ("unanswerable_share = 0.02", "unanswerable_share = 0.95", "leave no steps"),
        ("recite_share = 0.25", "recite_share = 0.95", "leave no steps"),
        ("draft_share = 0.4", "draft_share = 0.9", "leave no steps"),
        ("\ndrafts = true", "", r"give \[translate\] and drafts = true"),
        ("quoted = [0, 0, 4, 8]", "quoted = [0, 33]", "dials.quoted goes beyond selection.positions, 32"),
        ("quoted = [0, 0, 4, 8]", "quoted = [0, -1]", "dials.quoted are 0"),
        ("text_share = 0.03", 'text_share = 0.03\nabstain = " "', "abstain"),
        ("continuations = 2", "continuations = -1", "sources.squad: continuations"),
        ("documents = 4000", "documents = -1", "sources.squad: documents"),
        ("validation = true", "validation = true\ncontinuations = 1", "training documents alone"),
        ("seed = 2\n", 'seed = 2\ninit = "runs/documents/bundle"\n', "one directory"),
        ("seed = 2\n", 'seed = 2\nscorer = "some/file"\n', "stage selection: unknown key scorer"),
        ('kind = "fit"', 'kind = "fit"\nwork = "elsewhere"', "stage selection: unknown key work"),
        ('work = "runs/documents"\n', "", "missing key work"),
        (
            'kind = "fit"',
            'kind = "guess"',
            "kind is one of fit, train, calibrate, profile, answerable; got 'guess'",
        ),
        ('name = "passages"', 'name = "start"', "the name stands there twice"),
        ('name = "passages"', 'name = "../passages"', "a name of letters"),
        (
            'name = "start"\nkind = "train"',
            'name = "start"\nkind = "calibrate"',
            "there is no bundle before it",
        ),
        (
            'name = "selection"\nkind = "fit"',
            'name = "selection"\nkind = "train"',
            "a stage of kind fit before",
        ),
        ('rule = "learnt"\nheads = 14\n', "", "nothing to fit"),
        ("fit.questions = 1200", "fit.questions = 12", "fit.questions must be at least 50"),
        ("profile.plans = 6", "profile.plan = 6", "stage plans: unknown key profile.plan"),
        ("profile.plans = 6", "profile.plans = 0", "profile needs"),
        ('kind = "calibrate"', 'kind = "calibrate"\ncalibrate.rates = []', "calibrate.rates is empty"),
        ("[selection]", "[fuse]\nrnak = 3\n[selection]", "unknown key fuse.rnak"),
        ("bits = [0, 4, 8]", "bits = [1]", "dials.bits"),
        ("bits = [0, 4, 8]", 'bits = [4]\ncodecs = ["raw"]', "bits or codecs"),
        ("code_dims = [192, ", "code_dims = [0, ", "dials.positions and dials.code_dims"),
        ("code_dims = [192, ", "code_dims = [385, ", "dials.code_dims goes beyond"),
        ("positions = [8, ", "positions = [100, ", "dials.positions goes beyond"),
        (
            "[translate]\ncode_dim = 384\nprefix_positions = 56\nreceiver_positions = 2",
            "",
            "nothing to train",
        ),
        (
            "[translate]\ncode_dim = 384\nprefix_positions = 56\nreceiver_positions = 2",
            "[fuse]",
            "trains a translate head",
        ),
        ("ridge = 0.02", "ridge = -1.0", "ridge must be"),
        ("ridge = 0.02", "ridge = ", "recipe.toml"),
        ("ridge = 0.02", "ridge = nan", "ridge: expected a finite number"),
        ("\nlearning_rate = 1.5e-4", "\nlearning_rate = nan", "learning_rate: expected a finite"),
        ("\nlearning_rate = 1.5e-4", "\nwarmup = -5", "warmup must not be negative"),
        ("\nlearning_rate = 1.5e-4", "\ngate_learning_rate = -1.0", "gate_learning_rate must be a number"),
        (
            "regression_positions = 150000",
            "regression_positions = 0",
            "regression_positions must be at least 1",
        ),
        ("seed = 2", "seed = -1", "seed must be at least 0"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(BadConfig, match=message.replace(".", r"\.")):
        _load(tmp_path, old, new)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "needs at least one [[stage]]"),
        ({"stage": [3]}, "needs at least one [[stage]]"),
        ({"sources": [{"source": "records:train", "documents": 3}]}, "sources: one table each"),
        ({"sources": {"records": {"source": "records:train"}}}, "stage only: no data"),
        ({"sources": {"records": {"sauce": "records:train"}}}, "unknown key sources.records.sauce"),
    ],
)
def test_a_recipe_without_stages_or_sources_is_refused(table: dict[str, Any], message: str) -> None:
    style = {"opening": "", "wraps": {}, "closing": ""}
    base = {
        "work": "w",
        "output": "o",
        "sharer": "a",
        "receiver": "b",
        "sharer_prompt": style,
        "receiver_prompt": style,
        "translate": {"code_dim": 4},
    }
    stages = {"stage": [{"name": "only", "kind": "train"}]} if "sources" in table else {}
    with pytest.raises(BadConfig, match=re.escape(message)):
        Recipe.of(base | stages | table)


def test_the_fuse_table_has_a_layer_map_by_name(tmp_path: Path) -> None:
    compact = _load(tmp_path, "[selection]", '[fuse]\nrank = 8\nlayer_map = "nearest"\n[selection]')
    found = _config(compact, "start").fuse_config(6, 4)
    assert found is not None
    assert (found.rank, found.anneal_steps) == (8, 700)  # as many as the run has steps
    assert found.layer_map.sources == (0, 1, 1, 2, 2, 3)
    odd = _load(tmp_path, "[selection]", '[fuse]\nlayer_map = "upside down"\n[selection]')
    with pytest.raises(BadConfig, match=r"fuse\.layer_map: .*'upside down'"):
        _config(odd, "start").fuse_config(6, 4)


def test_what_is_of_one_head_is_refused_without_it() -> None:
    prompts = _config(Recipe.load(TWO_TASKS), "prompts")
    shared = replace(prompts, translate=None, dials=DialsConfig())
    with pytest.raises(ValueError, match=r"dials\.positions, quoted, code_dims, bits and codecs"):
        replace(shared, dials=DialsConfig(codecs=("raw",)))
    with pytest.raises(ValueError, match=r"dials\.last is of shared slices"):
        replace(_config(Recipe.load(DOCUMENTS), "start"), dials=DialsConfig(last=(4,)))
    with pytest.raises(ValueError, match=r"dials\.last are 0 \(all positions\) or more"):
        DialsConfig(last=(-1,))
    with pytest.raises(ValueError, match="unanswerable_share is of questions over documents"):
        replace(shared, answer=replace(shared.answer, unanswerable_share=0.1))
