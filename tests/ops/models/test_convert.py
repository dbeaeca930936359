"""A converted directory loads like any other, and is there whole or not at all."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, GenerationConfig

from fuser.models.load import load_model
from ops.models import convert as module
from ops.models.convert import convert, is_converted
from ops.models.errors import BadGguf
from ops.models.gguf import ARCHITECTURES
from ops.models.progress import Progress
from tests.ops.models.tiny_gguf import TinyGguf, write_tiny_gguf

QUIET = Progress(False)


def converted(tiny: TinyGguf, parent: Path) -> Path:
    directory = parent / "models" / tiny.known.name
    convert(tiny.path, directory, tiny.known, QUIET)
    return directory


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loaded_model_computes_what_the_original_does(architecture: str, tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path, architecture)
    model, tokenizer = load_model(converted(tiny, tmp_path))
    assert type(model) is type(tiny.model)
    ids = tokenizer("The harbour master keeps 12 keys.", return_tensors="pt").input_ids
    ids = ids.repeat(1, 4)  # longer than the sliding window
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, tiny.model(ids).logits)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_config_says_what_the_original_does(architecture: str, tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path, architecture)
    written = AutoConfig.from_pretrained(converted(tiny, tmp_path)).to_dict()
    original = tiny.model.config.to_dict()
    ignored = {"_name_or_path", "architectures", "dtype", "initializer_range", "transformers_version"}
    if architecture == "qwen2":
        ignored.add("head_dim")  # not a field of its config: width / heads
    different = {key for key in original if key not in ignored and original[key] != written.get(key)}
    assert different == set()


def test_the_chat_template_and_the_stop_tokens_come_along(tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path)
    tiny = dataclasses.replace(tiny, known=dataclasses.replace(tiny.known, stop_ids=(0,)))
    directory = converted(tiny, tmp_path)
    model, tokenizer = load_model(directory)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    assert chat == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    assert model.generation_config.eos_token_id == [2, 0]
    assert GenerationConfig.from_pretrained(directory).pad_token_id == 0


def test_weights_are_stored_in_the_pinned_dtype_and_loaded_as_float32(tmp_path: Path) -> None:
    directory = converted(write_tiny_gguf(tmp_path, dtype="bfloat16"), tmp_path)
    assert json.loads((directory / "config.json").read_text())["dtype"] == "bfloat16"
    model, _ = load_model(directory)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_conversion_is_known_by_its_mark(tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path)
    directory = tmp_path / "models" / tiny.known.name
    assert not is_converted(directory, tiny.known)
    converted(tiny, tmp_path)
    assert is_converted(directory, tiny.known)
    assert not is_converted(directory, dataclasses.replace(tiny.known, sha256="0" * 64))
    assert sorted(path.name for path in directory.parent.iterdir()) == [tiny.known.name]


@pytest.mark.parametrize("damage", ["cut", "gone", "mark", "older"])
def test_a_damaged_conversion_is_not_taken(damage: str, tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path)
    directory = converted(tiny, tmp_path)
    weights, mark = directory / "model.safetensors", directory / "kvwire.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "gone":
        weights.unlink()
    elif damage == "mark":
        mark.write_text("{")
    else:
        mark.write_text(mark.read_text().replace(f'"conversion": {module.CONVERSION}', '"conversion": 0'))
    assert not is_converted(directory, tiny.known)


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = write_tiny_gguf(tmp_path)

    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_json", full)
    with pytest.raises(OSError, match="No space left"):
        converted(tiny, tmp_path)
    assert list((tmp_path / "models").iterdir()) == []


def test_what_a_killed_conversion_left_is_removed(tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path)
    left = tmp_path / "models" / f".{tiny.known.name}.99999"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    converted(tiny, tmp_path)
    assert not left.exists()


def test_a_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path, "qwen2")
    other = dataclasses.replace(tiny, known=dataclasses.replace(tiny.known, architecture="llama"))
    with pytest.raises(BadGguf, match="architecture 'qwen2', not 'llama'"):
        converted(other, tmp_path)
