"""The config of a run: strict, and refused before anything is loaded."""

from dataclasses import replace
from pathlib import Path

import pytest

from fuser.bundle import Bundle
from fuser.c2c.head import C2CConfig
from fuser.compact.config import CompactConfig
from fuser.config import BadConfig
from fuser.train.config import TrainConfig
from fuser.train.dials import DialsConfig

SHIPPED = Path(__file__).parents[3] / "fuser" / "train" / "demo_pair.toml"
MORE = SHIPPED.with_name("demo_pair_more.toml")
PROMPTS = SHIPPED.with_name("two_tasks_prompts.toml")


def _load(tmp_path: Path, old: str, new: str) -> TrainConfig:
    text = SHIPPED.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "run.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return TrainConfig.load(path)


def test_the_shipped_config_is_read() -> None:
    config = TrainConfig.load(SHIPPED)
    assert config.translate is not None
    assert config.translate.code_dim == 384
    assert [source.validation for source in config.sources] == [False] * 3 + [True] * 3


def test_the_second_run_starts_from_the_bundle_of_the_first_and_reads_as_it_does() -> None:
    first, second = TrainConfig.load(SHIPPED), TrainConfig.load(MORE)
    assert second.init == first.output
    for name in ("sharer", "receiver", "translate", "selection", "scorer", "dtype", "lead"):
        assert getattr(second, name) == getattr(first, name)
    assert second.sharer_prompt == first.sharer_prompt
    assert second.receiver_prompt == first.receiver_prompt


@pytest.mark.parametrize("run", ["two_tasks.toml", "two_tasks_prompts.toml"])
def test_the_runs_of_the_bundle_for_both_tasks_read_as_the_bundle_that_ships(run: str) -> None:
    config = TrainConfig.load(SHIPPED.with_name(run))
    pair = SHIPPED.parents[1] / "bundles" / "qwen2.5-coder-1.5b--smollm2-135m"
    shipped = Bundle.load(pair).config
    for name in ("sharer_prompt", "receiver_prompt", "translate", "selection"):
        assert getattr(config, name) == getattr(shipped, name)
    layers = shipped.receiver_geometry.layers, shipped.sharer_geometry.layers
    ours, theirs = config.fuse_config(*layers), shipped.fuse
    assert isinstance(ours, CompactConfig) and isinstance(theirs, CompactConfig)
    assert (ours.layer_map, ours.rank) == (theirs.layer_map, theirs.rank)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ridge = 0.02", "rigde = 0.02", "unknown key rigde"),
        ("[answer]\nsteps", "[answer]\nstep", "unknown key answer.step"),
        ("steps = 1600", "steps = 0", "steps must be at least 1"),
        ("text_share = 0.04", "text_share = 1.5", "text_share"),
        ("unanswerable_share = 0.04", "unanswerable_share = 0.95", "leave no steps"),
        ("recite_share = 0.35", "recite_share = 0.95", "leave no steps"),
        ("text_share = 0.04", 'text_share = 0.04\nabstain = " "', "abstain"),
        ("continuations = 2", "continuations = -1", "continuations"),
        ("validation = true", "validation = true\ncontinuations = 1", "training documents alone"),
        ("seed = 1\n", 'seed = 1\ninit = "runs/demo-pair/bundle"\n', "one directory"),
        ("[selection]", "[fuse]\nrnak = 3\n[selection]", "unknown key fuse.rnak"),
        ("[selection]", "[noise]\nbits = 1\n[selection]", "noise.bits"),
        ("bits = [0, 4, 4, 8]", "bits = [1]", "dials.bits"),
        ("bits = [0, 4, 4, 8]", 'bits = [4]\ncodecs = ["raw"]', "bits or codecs"),
        ("code_dims = [96, ", "code_dims = [0, ", "dials.positions and dials.code_dims"),
        ("code_dims = [96, ", "code_dims = [385, ", "dials.code_dims goes beyond"),
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
        ("seed = 1", "seed = 1\ngate_price = -1.0", "gate_price"),
        ("ridge = 0.02", "ridge = ", "run.toml"),
        ("ridge = 0.02", "ridge = nan", "ridge must be a number"),
        ("\nlearning_rate = 1.5e-4", "\nlearning_rate = nan", "learning_rate must be a number"),
        ("\nlearning_rate = 1.5e-4", "\nwarmup = -5", "warmup must not be negative"),
        ("\nlearning_rate = 1.5e-4", "\ngate_learning_rate = inf", "gate_learning_rate must be a number"),
        (
            "regression_positions = 150000",
            "regression_positions = 0",
            "regression_positions must be at least 1",
        ),
        ("seed = 1", "seed = -1", "seed must be at least 0"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(BadConfig, match=message.replace(".", r"\.")):
        _load(tmp_path, old, new)


def test_the_fuse_table_is_either_family_with_a_layer_map_by_name(tmp_path: Path) -> None:
    compact = _load(tmp_path, "[selection]", '[fuse]\nrank = 8\nlayer_map = "nearest"\n[selection]')
    found = compact.fuse_config(6, 4)
    assert isinstance(found, CompactConfig)
    assert (found.rank, found.anneal_steps) == (8, 1600)  # as many as the run has steps
    assert found.layer_map.sources == (0, 1, 1, 2, 2, 3)
    public = _load(tmp_path, "[selection]", '[fuse]\nkind = "c2c"\nhidden_dim = 16\n[selection]')
    found = public.fuse_config(6, 4)
    assert isinstance(found, C2CConfig)
    assert found.layer_map.sources == (0, 0, 0, 1, 2, 3)
    pairs = _load(tmp_path, "[selection]", "[fuse]\nlayer_map = [[5, 3], [4, 1]]\n[selection]")
    found = pairs.fuse_config(6, 4)
    assert found is not None
    assert found.layer_map.sources == (None, None, None, None, 1, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('"upside down"', "fuse.layer_map: .*'upside down'"),
        ("[]", "fuse.layer_map: .*got \\[\\]"),
        ('[["a", 0]]', "fuse.layer_map: .*'a'"),
        ("[[[0], 1]]", "fuse.layer_map: "),
        ("[[true, 1]]", "fuse.layer_map: .*True"),
        ("[[0, 1], [0, 2]]", "a Receiver layer stands there twice"),
    ],
)
def test_a_layer_map_that_is_none_is_refused(tmp_path: Path, given: str, message: str) -> None:
    odd = _load(tmp_path, "[selection]", f"[fuse]\nlayer_map = {given}\n[selection]")
    with pytest.raises(BadConfig, match=message):
        odd.fuse_config(6, 4)


def test_what_is_of_one_head_is_refused_without_it() -> None:
    shared = replace(TrainConfig.load(PROMPTS), translate=None, dials=DialsConfig())
    with pytest.raises(ValueError, match=r"dials\.positions, code_dims, bits and codecs"):
        replace(shared, dials=DialsConfig(codecs=("raw",)))
    with pytest.raises(ValueError, match=r"dials\.last is of shared slices"):
        replace(TrainConfig.load(SHIPPED), dials=DialsConfig(last=(4,)))
    with pytest.raises(ValueError, match=r"dials\.last are 0 \(all positions\) or more"):
        DialsConfig(last=(-1,))
    with pytest.raises(ValueError, match="unanswerable_share is of questions over documents"):
        replace(shared, answer=replace(shared.answer, unanswerable_share=0.1))
