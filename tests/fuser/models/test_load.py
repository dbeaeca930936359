"""A name, an id or a directory becomes a model in memory."""

import shutil
from pathlib import Path

import pytest
import torch

from fuser.models.directory import MARK, BadModelDirectory, NotFetched, UnknownModel, find_model, model_ref
from fuser.models.load import load_model, load_tokenizer
from ops.models.fetch import find, resolve


def test_a_directory_is_taken_as_it_is(tiny_receiver: Path) -> None:
    assert resolve(tiny_receiver) == tiny_receiver
    assert resolve(str(tiny_receiver)) == tiny_receiver
    assert find(tiny_receiver) == tiny_receiver


def test_a_model_is_loaded_frozen_in_float32(tiny_receiver: Path) -> None:
    model, tokenizer = load_model(tiny_receiver)
    assert not model.training
    assert all(not p.requires_grad and p.dtype is torch.float32 for p in model.parameters())
    assert model.config._attn_implementation == "sdpa"
    assert tokenizer.is_fast
    assert tokenizer("a b", return_offsets_mapping=True)["offset_mapping"]


def test_another_dtype_and_attention_can_be_asked_for(tiny_receiver: Path) -> None:
    model, _ = load_model(tiny_receiver, dtype=torch.bfloat16, attention="eager")
    assert model.dtype is torch.bfloat16
    assert model.config._attn_implementation == "eager"


def test_loading_shows_nothing(tiny_receiver: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(tiny_receiver)
    assert capfd.readouterr() == ("", "")


def test_a_tokenizer_can_be_loaded_alone(tiny_receiver: Path) -> None:
    assert load_tokenizer(tiny_receiver)("harbour").input_ids


def test_an_unknown_name_is_refused_with_what_would_do() -> None:
    with pytest.raises(UnknownModel, match=r"'no-such-model' is no known model.*smollm2-135m-instruct"):
        resolve("no-such-model")


def test_a_directory_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelDirectory, match=r"has no config\.json"):
        resolve(tmp_path)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(BadModelDirectory, match=r"no \*\.safetensors.*pickled weights are refused"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "nobody/nothing"])
def test_looking_for_a_model_that_is_not_here_says_how_to_fetch_it(name: str) -> None:
    with pytest.raises(NotFetched, match=f"run `kvwire models fetch {name}`"):
        find(name)


def test_the_core_finds_a_fetched_model_by_its_name_and_fetches_none(
    tiny_receiver: Path, cache: Path
) -> None:
    with pytest.raises(UnknownModel, match="no model that was fetched to this machine"):
        find_model("smollm2-135m-instruct")
    place = cache / "models" / "smollm2-135m-instruct"
    shutil.copytree(tiny_receiver, place)
    (place / MARK).write_text('{"name": "smollm2-135m-instruct", "revision": "abc"}')
    assert find_model("smollm2-135m-instruct") == place
    assert str(model_ref(place)).startswith("smollm2-135m-instruct")
