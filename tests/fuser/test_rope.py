"""Re-base: keys lose and regain their position exactly, whatever the model's rotary settings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from fuser.kv.geometry import Geometry
from fuser.kv.prefill import prefill
from fuser.kv.rope import Rope
from kvwire.errors import Unsupported

SIZE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
SLIDING = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZE, rope_theta=1e4)),
    "llama scaled": lambda: LlamaForCausalLM(
        LlamaConfig(**SIZE, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5})
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZE, rope_theta=1e6)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZE, head_dim=24, rope_theta=1e6)),
    "gemma3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(**SIZE, head_dim=16, sliding_window=8, layer_types=SLIDING)
    ),
    "partial rotary": lambda: Phi3ForCausalLM(
        Phi3Config(
            **SIZE, rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
        )
    ),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def test_a_model_without_rotary_positions_is_refused_by_its_type(tmp_path: Path) -> None:
    config = GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=64, bos_token_id=0, eos_token_id=1)
    model = GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path)
    for make in (lambda: Rope(model), lambda: Rope.of_model(tmp_path)):
        with pytest.raises(Unsupported, match="models of type gpt2 have no rotary positions"):
            make()


def test_positions_that_turn_with_what_is_read_beside_them_are_refused() -> None:
    dynamic = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 5e5}
    with pytest.raises(Unsupported, match="of type dynamic"):
        Rope(LlamaForCausalLM(LlamaConfig(**SIZE, rope_parameters=dynamic)))


def test_unrotating_then_rotating_gives_the_same_keys_to_rounding(model: Any) -> None:
    rope, shape = Rope(model), Geometry.of(model.config)
    keys = torch.randn(shape.layers, shape.kv_heads, 9, shape.head_dim)
    positions = torch.tensor([0, 1, 5, 17, 100, 511, 1000, 1999, 2001])
    back = rope.rotate_all(rope.unrotate_all(keys, positions), positions)
    torch.testing.assert_close(back, keys, rtol=0, atol=2e-6)
    for layer in range(shape.layers):
        one = rope.rotate(rope.unrotate(keys[layer], positions, layer), positions, layer)
        torch.testing.assert_close(one, keys[layer], rtol=0, atol=2e-6)


def test_rotating_all_layers_at_once_equals_one_layer_at_a_time(model: Any) -> None:
    rope, shape = Rope(model), Geometry.of(model.config)
    keys = torch.randn(shape.layers, shape.kv_heads, 5, shape.head_dim)
    positions = torch.arange(3, 8)
    each = torch.stack([rope.rotate(keys[layer], positions, layer) for layer in range(shape.layers)])
    assert torch.equal(rope.rotate_all(keys, positions), each)


def test_rebased_keys_of_layer_0_are_the_same_whatever_stands_before(model: Any) -> None:
    rope = Rope(model)
    question = torch.randint(0, 64, (6,))
    seen = []
    for length in (0, 3, 40):
        ids = torch.cat((torch.randint(0, 64, (length,)), question))
        kept: list[torch.Tensor] = []
        prefill(model, ids[None], last_layer=0, on_layer=lambda _, keys, __, kept=kept: kept.append(keys[0]))
        at = torch.arange(length, length + 6)
        seen.append(rope.unrotate(kept[0][:, at], at, 0))
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=2e-6)
    torch.testing.assert_close(seen[2], seen[0], rtol=0, atol=2e-6)
