"""A model's folder: whole, and without code of its own."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from fuser.kv.rope import Rope
from fuser.models.directory import BadModelDirectory
from fuser.models.load import load_config, load_model, load_tokenizer, load_weights
from ops.models.fetch import find, resolve

CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer
class Config(Qwen2Config):
    model_type = "mine"
class Model(Qwen2ForCausalLM):
    config_class = Config
class Words(Qwen2Tokenizer):
    pass
"""


@pytest.fixture
def folder(tiny_sharer: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(tiny_sharer, copy)
    return copy


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def with_code(folder: Path, name: str, **auto_map: object) -> Path:
    """Its code leaves a file behind that is returned."""
    marker = folder.parent / "ran"
    (folder / "mine.py").write_text(CODE.format(marker=str(marker)))
    change(folder / name, auto_map=auto_map)
    return marker


@pytest.mark.parametrize("said", ["y\n" * 20, ""], ids=["yes", "closed"])
@pytest.mark.parametrize(
    "load", [resolve, find, load_config, load_weights, load_model, load_tokenizer, Rope.of_model]
)
@pytest.mark.parametrize("kind", ["mine", "qwen2"])
def test_code_in_a_models_folder_is_not_run_nor_asked_about(
    folder: Path,
    load: object,
    kind: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    marker = with_code(folder, "config.json", AutoConfig="mine.Config", AutoModelForCausalLM="mine.Model")
    change(folder / "config.json", model_type=kind)
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    if not said:
        sys.stdin.close()
    with pytest.raises(
        BadModelDirectory, match=r"config\.json has `auto_map`: .* code run that came with it"
    ):
        load(folder)  # type: ignore[operator]
    assert not marker.exists()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("auto_map", [{"AutoTokenizer": ["mine.Words", "mine.Words"]}])
def test_code_of_a_tokenizer_is_not_run(
    folder: Path, auto_map: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = with_code(folder, "tokenizer_config.json", **auto_map)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
    for load in (load_tokenizer, load_model, resolve):
        with pytest.raises(BadModelDirectory, match=r"tokenizer_config\.json has `auto_map`"):
            load(folder)
    assert not marker.exists()


def test_a_type_of_model_that_transformers_does_not_know_is_refused_by_file(folder: Path) -> None:
    change(folder / "config.json", model_type="mine")
    with pytest.raises(BadModelDirectory, match=r"config\.json: .*`mine`"):
        load_model(folder)


@pytest.mark.parametrize(("text", "said"), [("{", "is no JSON"), ("[]", "is no JSON object")])
def test_a_config_that_is_not_a_json_object_is_named(folder: Path, text: str, said: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(BadModelDirectory, match=rf"config\.json {said}"):
        resolve(folder)


def test_a_part_of_the_weights_that_is_missing_is_named(folder: Path) -> None:
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors").rename(folder / parts["a"])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    with pytest.raises(
        BadModelDirectory, match=r"lacks model-00002-of-00002\.safetensors, which .*index\.json names"
    ):
        load_model(folder)
