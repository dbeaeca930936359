"""The direct loader gives the weights that the GGUF file was written from."""

from pathlib import Path

import gguf
import pytest
import torch
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from ops.models.errors import BadGguf
from ops.models.gguf import ARCHITECTURES, GgufFile
from tests.ops.models.tiny_gguf import TinyGguf, write_tiny_gguf


def loaded(tiny: TinyGguf) -> dict[str, torch.Tensor]:
    file = GgufFile(tiny.path)
    weights = dict(file.weights(tied=True))
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == file.shapes(tied=True)
    assert list(weights) == list(file.shapes(tied=True))
    return weights


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_unquantised_weights_come_back_as_they_were(architecture: str, tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path, architecture)
    weights = loaded(tiny)
    expected = {name: value for name, value in tiny.model.state_dict().items() if name != "lm_head.weight"}
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        if architecture == "gemma3" and name.endswith("norm.weight"):
            torch.testing.assert_close(weight, expected[name])  # (w + 1) - 1 rounds
        else:
            assert torch.equal(weight, expected[name]), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_quantised_weights_equal_those_of_transformers(architecture: str, tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path, architecture, quantisation=gguf.GGMLQuantizationType.Q8_0)
    expected = load_gguf_checkpoint(tiny.path, return_tensors=True, model_to_load=tiny.model)["tensors"]
    for name, weight in loaded(tiny).items():
        assert torch.equal(weight, expected[name]), name


def test_a_head_of_its_own_takes_the_place_of_a_tied_embedding(tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path, "qwen2", own_head=True, quantisation=gguf.GGMLQuantizationType.Q8_0)
    weights = loaded(tiny)
    assert "lm_head.weight" not in weights
    assert torch.equal(weights["model.embed_tokens.weight"], tiny.model.lm_head.weight)
    untied = dict(GgufFile(tiny.path).weights(tied=False))
    assert torch.equal(untied["lm_head.weight"], tiny.model.lm_head.weight)
    assert not torch.equal(untied["model.embed_tokens.weight"], untied["lm_head.weight"])


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model at all" * 10)
    with pytest.raises(BadGguf, match=r"not a readable GGUF file .* fetch again"):
        GgufFile(path)


@pytest.mark.parametrize("kept", [0, 3, 100, 5_000])
def test_a_file_that_was_cut_off_is_refused(kept: int, tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path)
    tiny.path.write_bytes(tiny.path.read_bytes()[:kept])
    with pytest.raises(BadGguf, match="not a readable GGUF file"):
        GgufFile(tiny.path)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BadGguf, match="architecture 'mamba'; this loader knows llama, qwen2, gemma3"):
        GgufFile(path)


def test_an_unknown_tensor_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("blk.0.attn_surprise.weight", torch.ones(4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BadGguf, match=r"'blk\.0\.attn_surprise\.weight' has no place in a llama model"):
        GgufFile(path).shapes(tied=True)
