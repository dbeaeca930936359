"""Whole runs on the tiny pair, from a config to what is written: every head, and one model on both sides."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress
from safetensors.torch import save_file

from fuser.bundle.bundle import Bundle
from fuser.config import from_dict
from fuser.lab.calibrate import calibrated_for
from fuser.lab.data.overlap import digest, held_out
from fuser.lab.train.cached import Cached
from fuser.lab.train.config import TrainConfig
from fuser.lab.train.log import read_log
from fuser.lab.train.prepare import fill_cache, prepare, start_from
from fuser.lab.train.run import train
from fuser.models.load import load_model
from fuser.receiver import Receiver
from fuser.sharer import Sharer
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from ops.chaos.in_one_process import answer_in_one_process
from ops.chaos.tiny_bundle import RECEIVER_PROMPT, SHARER_PROMPT
from tests.fuser.lab.train.conftest import HEADS

EVALUATED = "Which NFL team represented the AFC at Super Bowl 50?"  # of SQuAD's dev split
ALONE: dict[str, Any] = {"sources": [{"source": "records:train", "documents": 12}]}
EXCERPTS = {"code_dim": 24, "prefix_positions": 6}
SECTIONS = (
    Section(Role.DOCUMENT, Visibility.CLOUD, document_id="note"),
    Section(Role.QUESTION, Visibility.SHARED, text="Where is the ledger?"),
)


def run_config(folder: Path, sharer: Path, receiver: Path, **tables: Any) -> TrainConfig:
    """Four steps on records and on instructions, one of which is an evaluation question."""
    rows = [{"instruction": f"What is {n} and {n}?", "input": "", "output": f"{2 * n}"} for n in range(11)]
    rows.insert(5, {"instruction": EVALUATED, "input": "", "output": "Denver Broncos"})
    instructions = folder / "instructions.jsonl"
    instructions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    raw = {
        "sharer": str(sharer),
        "receiver": str(receiver),
        "sharer_prompt": SHARER_PROMPT,
        "receiver_prompt": RECEIVER_PROMPT,
        "sources": [
            {"source": "records:train", "documents": 12},
            {"source": str(instructions), "documents": 20, "task": "shared"},
        ],
        "work": str(folder / "work"),
        "output": str(folder / "output"),
        "cache": str(folder / "cache"),
        "selection": {"positions": 8},
        "answer": {"steps": 4, "batch": 2, "evaluate_every": 4, "validation": 4},
        "regression_positions": 400,
    }
    return from_dict(TrainConfig, raw | HEADS | tables)


def excerpts_alone(folder: Path, sharer: Path, receiver: Path) -> TrainConfig:
    """A run that makes a bundle of excerpts."""
    return run_config(folder, sharer, receiver, translate=EXCERPTS, fuse=None, **ALONE)


def going_on(first: TrainConfig, folder: Path) -> dict[str, str]:
    """Keys of a run that starts from the bundle of another."""
    return {"init": first.output, "work": str(folder / "more"), "output": str(folder / "both")}


def cached_and_trained(config: TrainConfig) -> dict[str, Any]:
    with Progress(disable=True) as progress:
        fill_cache(config, progress)
        return train(config, progress)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_head_is_trained_in_one_run(
    dtype: str, tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path
) -> None:
    config = run_config(tmp_path, tiny_sharer, tiny_receiver, dtype=dtype)
    done = cached_and_trained(config)
    assert done["finished"]
    bundle = Bundle.load(done["output"])
    assert bundle.hash == done["bundle"]
    assert bundle.kinds == set(SliceKind)
    rows = read_log(Path(config.work))
    assert {row["task"] for row in rows if row["stage"] == "validation"} == {"document", "shared"}
    (start,) = (row for row in rows if row["stage"] == "start" and row["task"] == "document")
    assert start["explained_key"] < 1 and start["explained_value"] < 1


def test_no_evaluation_question_is_in_a_training_cache(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path
) -> None:
    config = run_config(tmp_path, tiny_sharer, tiny_receiver)
    assert digest(EVALUATED) in held_out()
    assert EVALUATED in (tmp_path / "instructions.jsonl").read_text(encoding="utf-8")
    with Progress(disable=True) as progress:
        fill_cache(config, progress)
    setting = prepare(config)
    items = [*setting.cache.documents, *setting.cache.prompts]
    asked = [q.text for item in items if isinstance(item, Cached) for q in item.questions]
    asked += [prompt.text for prompt in setting.cache.prompts]
    assert len(asked) > 20
    assert not [text for text in asked if digest(text) in held_out()]
    (index,) = Path(config.cache).glob("*/index.jsonl")
    assert EVALUATED not in index.read_text(encoding="utf-8")


def test_a_run_may_start_from_a_bundle_and_give_it_a_head_it_lacks(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path
) -> None:
    first = excerpts_alone(tmp_path, tiny_sharer, tiny_receiver)
    before = Bundle.load(cached_and_trained(first)["output"]).require_translate()
    shorter = EXCERPTS | {"code_dim": 8}
    config = run_config(tmp_path, tiny_sharer, tiny_receiver, translate=shorter, **going_on(first, tmp_path))
    with Progress(disable=True) as progress:
        fill_cache(config, progress)
    setting = prepare(config)
    assert setting.started == {"translate"}
    head = setting.heads["translate"]
    assert torch.equal(head.get_parameter("squeeze.weight"), before.get_parameter("squeeze.weight")[:8])
    assert torch.equal(head.get_parameter("widen.weight"), before.get_parameter("widen.weight")[:, :8])
    assert torch.equal(head.get_parameter("prefix"), before.get_parameter("prefix"))
    assert Bundle.load(cached_and_trained(config)["output"]).kinds == set(SliceKind)


def test_a_head_of_the_bundle_that_has_no_sources_stays_as_it_is(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path
) -> None:
    first = excerpts_alone(tmp_path, tiny_sharer, tiny_receiver)
    before = Bundle.load(cached_and_trained(first)["output"]).require_translate().state_dict()
    shared = {"source": str(tmp_path / "instructions.jsonl"), "documents": 20, "task": "shared"}
    tables = {"translate": EXCERPTS, "sources": [shared]}
    config = run_config(tmp_path, tiny_sharer, tiny_receiver, **tables | going_on(first, tmp_path))
    both = Bundle.load(cached_and_trained(config)["output"])
    assert both.kinds == set(SliceKind)
    after = both.require_translate().state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert {row["task"] for row in read_log(Path(config.work)) if row["stage"] == "step"} == {"shared"}


@pytest.mark.parametrize(
    ("tables", "named"),
    [
        ({"translate": {"code_dim": 25}}, "shape"),
        ({"receiver_prompt": RECEIVER_PROMPT | {"closing": "!"}}, "prompt"),
    ],
)
def test_a_run_does_not_start_from_a_bundle_of_something_else(
    tables: dict[str, Any], named: str, tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path
) -> None:
    shape = {"translate": {"code_dim": 24}, "lead": "", "fuse": None} | ALONE
    first = run_config(tmp_path, tiny_sharer, tiny_receiver, **shape)
    cached_and_trained(first)
    own = {"init": first.output, "output": str(tmp_path / "other")}
    with pytest.raises(ValueError, match=named):
        prepare(run_config(tmp_path, tiny_sharer, tiny_receiver, **shape | tables | own))
    with pytest.raises(ValueError, match="would be lost"):
        start_from(bundle := Bundle.load(first.output), bundle.config, {})


def test_a_run_that_reads_otherwise_does_not_calibrate(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path
) -> None:
    bundle = Bundle.load(cached_and_trained(excerpts_alone(tmp_path, tiny_sharer, tiny_receiver))["output"])
    other = run_config(tmp_path, tiny_sharer, tiny_receiver, selection={"positions": 7})
    with Progress(disable=True) as progress, pytest.raises(ValueError, match="selection: the bundle has"):
        calibrated_for(bundle, other, progress)


def test_a_run_may_select_and_ask_otherwise_than_the_bundle_it_starts_from_but_not_calibrate_so(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path
) -> None:
    layers = load_model(tiny_sharer)[0].config
    heads = layers.num_hidden_layers * layers.num_attention_heads
    learnt = {"rule": "learnt", "positions": 8, "heads": layers.num_attention_heads, "first_layer": 0.0}
    shape = {"translate": EXCERPTS, "fuse": None, "selection": learnt} | ALONE

    def scorer(most: float) -> str:
        path = tmp_path / f"scorer-{most}"
        save_file({"weight": torch.linspace(0.1, most, heads)}, path)
        return str(path)

    first = run_config(tmp_path, tiny_sharer, tiny_receiver, scorer=scorer(1.0), **shape)
    cached_and_trained(first)
    more = shape | going_on(first, tmp_path)
    prepare(run_config(tmp_path, tiny_sharer, tiny_receiver, **more))
    asked = {"sharer_prompt": dict(SHARER_PROMPT, closing="</s><|im_start|>A:")}
    other = run_config(tmp_path, tiny_sharer, tiny_receiver, scorer=scorer(2.0), **more | asked)
    with Progress(disable=True) as progress:
        fill_cache(other, progress)
        setting = prepare(other)
        assert setting.started == {"translate"}
        assert setting.bundle.sharer_prompt == other.sharer_prompt
        assert float(Bundle(setting.bundle, **setting.heads).scorer.weight[-1]) == 2.0
        other = run_config(tmp_path, tiny_sharer, tiny_receiver, scorer=scorer(2.0), **more)
        fill_cache(other, progress)
        with pytest.raises(ValueError, match="its fitted selection is another"):
            calibrated_for(Bundle.load(first.output), other, progress)


def test_a_fuse_head_is_gone_on_with_at_another_pace(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path
) -> None:
    first = run_config(tmp_path, tiny_sharer, tiny_receiver)
    before = Bundle.load(cached_and_trained(first)["output"])
    own = going_on(first, tmp_path)
    answer = {"steps": 6, "batch": 2, "evaluate_every": 6, "validation": 4, "unanswerable_share": 0.2}
    assert before.config.abstain == ""
    setting = prepare(run_config(tmp_path, tiny_sharer, tiny_receiver, answer=answer, **own))
    assert setting.started == {"translate", "fuse"}
    assert setting.bundle.abstain == "not stated"
    state = before.require_fuse().state_dict()
    assert all(torch.equal(value, state[name]) for name, value in setting.heads["fuse"].state_dict().items())


def test_a_receiver_that_reads_nothing_before_a_slice_is_refused(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path
) -> None:
    bare = {"lead": "", "translate": {"code_dim": 24}, "receiver_prompt": RECEIVER_PROMPT | {"opening": ""}}
    config = run_config(tmp_path, tiny_sharer, tiny_receiver, **bare)
    with Progress(disable=True) as progress:
        fill_cache(config, progress)
    with pytest.raises(ValueError, match="at least one token"):
        prepare(config)


def test_one_model_may_be_both_sharer_and_receiver(tiny_receiver: Path, tmp_path: Path) -> None:
    config = run_config(tmp_path, tiny_receiver, tiny_receiver)
    bundle = Bundle.load(cached_and_trained(config)["output"])
    assert bundle.config.sharer == bundle.config.receiver
    model, tokenizer = load_model(tiny_receiver)
    sharer, receiver = Sharer(*load_model(tiny_receiver), bundle), Receiver(model, tokenizer, bundle)
    for kind in SliceKind:
        notes = {"note": "The ledger lies in the cedar box in the boat house by the mill."}
        local = answer_in_one_process(sharer, receiver, SECTIONS, notes, kind, 8, 4)
        assert local.prefilled.tokens
