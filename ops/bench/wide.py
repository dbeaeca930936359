"""A pair made to be timed, not understood: random weights and caches so wide that bytes outweigh their making."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

LAYERS: Final = 32
_HEADS: Final = 16
_HEAD_DIM: Final = 128
_HIDDEN: Final = 32
BYTES_PER_POSITION: Final = 2 * LAYERS * _HEADS * _HEAD_DIM * 2
"""K and V of all layers, in 16 bits a number: 256 KiB. A Sharer that computes in float32 sends twice as much."""
_WINDOW: Final = 16_384
_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def save_wide_pair(folder: Path, like: Path) -> tuple[Path, Path]:
    """Save a model that is both Sharer and Receiver, and a bundle that feeds every layer from its own.

    Args:
        like: a model's directory, whose tokenizer is taken.

    Returns:
        the directories of model and bundle.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from fuser.bundle.bundle import Bundle, BundleConfig
    from fuser.heads.compact import CompactConfig
    from fuser.kv.geometry import Geometry, LayerMap
    from fuser.models.directory import model_ref
    from fuser.models.load import load_tokenizer
    from fuser.prompts.prompt import PromptStyle

    model, bundle = folder / "wide", folder / "wide-bundle"
    config = LlamaConfig(
        vocab_size=len(load_tokenizer(like)),
        hidden_size=_HIDDEN,
        intermediate_size=_HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        head_dim=_HEAD_DIM,
        max_position_embeddings=_WINDOW,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).eval().save_pretrained(model)
    for name in _TOKENIZER_FILES:
        if (like / name).exists():
            shutil.copy(like / name, model / name)
    style = PromptStyle.from_dict(
        {"opening": "", "wraps": {"document": ["", "\n"], "question": ["", "\n"]}, "closing": ""}
    )
    ref, geometry = model_ref(model), Geometry.of(config)
    made = BundleConfig(
        sharer=ref,
        receiver=ref,
        sharer_geometry=geometry,
        receiver_geometry=geometry,
        sharer_prompt=style,
        receiver_prompt=style,
        fuse=CompactConfig(LayerMap.terminal(LAYERS, LAYERS), rank=1, inner=1),
    )
    fuse = made.new_fuse()
    assert fuse is not None
    with torch.no_grad():
        fuse.get_parameter("gate_logit").fill_(1.0)  # an open gate at every layer, so all of them are sent
    Bundle(made, fuse).save(bundle)
    return model, bundle
