"""Tiny models of the families that people bring, each with a tokenizer, and some that cannot be in a pair."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
    T5Config,
)

from ops.chaos.tiny import _save_tokenizer

SIZE: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SLIDING = ["sliding_attention", "full_attention"] * 2
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}

GOOD: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SIZE),
    "llama with linear scaling": lambda: LlamaConfig(
        **SIZE, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    ),
    "qwen2": lambda: Qwen2Config(**SIZE),
    "qwen3": lambda: Qwen3Config(**SIZE, head_dim=24),
    "gemma3": lambda: Gemma3TextConfig(**SIZE, head_dim=16, sliding_window=64, layer_types=SLIDING),
    "mistral": lambda: MistralConfig(**SIZE, sliding_window=64),
    "mixtral": lambda: MixtralConfig(**SIZE, num_local_experts=2),
    "phi": lambda: PhiConfig(**SIZE),
    "phi3": lambda: Phi3Config(**SIZE),
}
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "gpt2": (lambda: GPT2Config(n_layer=2, n_head=2, n_embd=32), "type gpt2 have no rotary positions"),
    "mamba": (
        lambda: MambaConfig(hidden_size=32, num_hidden_layers=2),
        "type mamba have no rotary positions",
    ),
    "bert": (lambda: BertConfig(hidden_size=32, num_attention_heads=2), "type bert have no rotary positions"),
    "t5": (lambda: T5Config(), "type t5 are no causal language models"),
    "longrope": (
        lambda: Phi3Config(**SIZE | {"original_max_position_embeddings": 64}, rope_parameters=LONG),
        "rotary positions of type longrope",
    ),
    "dynamic": (
        lambda: LlamaConfig(
            **SIZE, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
        ),
        "rotary positions of type dynamic",
    ),
    "short": (
        lambda: LlamaConfig(**SIZE | {"max_position_embeddings": 256}),
        "made for 256 positions, and 1024 are needed",
    ),
}


def save_config(directory: Path, config: Any) -> Path:
    """A model's directory as far as it is looked at before weights are read."""
    _save_tokenizer(directory, vocabulary=512)
    config.save_pretrained(directory)
    (directory / "model.safetensors").touch()
    return directory


def save_model(directory: Path, config: Any) -> Path:
    """A whole random model."""
    import torch

    _save_tokenizer(directory, vocabulary=512)
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config).eval().save_pretrained(directory)
    return directory
