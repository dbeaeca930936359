"""Every family that transformers gives a window: its own K and V, on top of a past and beside others, or refused."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, model_type_to_module_name
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from fuser.kv.prefill import Prefill, adopt, can_pack, prefill, prefill_together
from kvwire.errors import Unsupported

WINDOW = 8
WIDTHS: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "intermediate_size": 48,
    "intermediate_size_mlp": 48,
    "moe_intermediate_size": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "vocab_size": 100,
    "max_position_embeddings": 128,
    "sliding_window": WINDOW,
    "use_sliding_window": True,
    "max_window_layers": 2,
    "sliding_window_pattern": 2,
    "attention_chunk_size": WINDOW,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PREFILLED = [
    "afmoe",
    "cohere2",
    "cwm",
    "exaone4",
    "gemma3_text",
    "llama",
    "llama4_text",
    "ministral",
    "mistral",
    "mixtral",
    "olmo3",
    "phi3",
    "phimoe",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "smollm3",
    "starcoder2",
]
"""Families that must not be refused."""
REFUSED = ["bloom", "falcon_h1", "gemma2", "gpt2", "gpt_oss", "mamba", "qwen3_next"]
"""Some that do not leave attention to us, or keep another state than K and V."""
UNLIKE = {
    "bamba",
    "cohere_compass_text",
    "dots1",
    "dots3_note_text",
    "gemma3n_text",
    "gemma4_text",
    "gemma4_unified_text",
    "gpt_neo",
    "granitemoehybrid",
    "iquestcoder",
    "lfm2_moe",
    "mamba2",
    "qwen4_exp_text",
    "zamba",
    "zamba2",
    "zaya",
}
"""Not tried: their configurations take no tiny model by these widths, but want values of their own."""
Kept = list[tuple[torch.Tensor, torch.Tensor]]


def with_a_window() -> list[str]:
    """Causal LMs of one part whose configuration knows windows or kinds of layers."""
    folder, found = Path(transformers.__file__).parent / "models", []
    for name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        if CONFIG_MAPPING[name].sub_configs:
            continue  # its text model is another family
        module = model_type_to_module_name(name)
        for file in (folder / module).glob("configuration_*.py"):
            if re.search(r"sliding_window|attention_chunk_size|layer_types|window_size", file.read_text()):
                found.append(name)
    return found


OTHERS = sorted({*with_a_window()} - {*PREFILLED, *REFUSED, *UNLIKE})


def tiny(name: str) -> Any:
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**WIDTHS)).eval()


def ids_of(length: int, seed: int) -> torch.Tensor:
    return torch.randint(3, 99, (1, length), generator=torch.Generator().manual_seed(seed))


def own(model: Any, ids: torch.Tensor) -> Kept:
    """K and V of transformers' plain forward pass."""
    with torch.inference_mode():
        cache = model(ids, past_key_values=DynamicCache(), use_cache=True).past_key_values
    return [(layer.keys, layer.values) for layer in cache.layers]


def cut(kept: Kept, at: slice) -> Kept:
    return [(keys[:, :, at], values[:, :, at]) for keys, values in kept]


def collected(ids: torch.Tensor, past: Kept) -> tuple[Prefill, Kept]:
    kept: Kept = []
    return Prefill(ids, 3, lambda _, keys, values: kept.append((keys, values)), past=past), kept


def assert_same(one: Kept, other: Kept) -> None:
    for first, second in zip(one, other, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


def check(model: Any) -> None:
    """Three times the window and more, whole, on top of a past, and both beside another prompt."""
    ids, at = ids_of(5 * WINDOW, 1), 3 * WINDOW
    expected = own(model, ids)
    past, rest = cut(expected, slice(at)), cut(expected, slice(at, None))
    for given, known, wanted in ((ids, [], expected), (ids[:, at:], past, rest)):
        work, kept = collected(given, known)
        prefill_together(model, [work])
        assert work.failure is None
        assert_same(kept, wanted)
    if can_pack(model):
        (whole, all_of_it), (other, _), (late, end) = (
            collected(ids, []),
            collected(ids_of(20, 2), []),
            collected(ids[:, at:], past),
        )
        prefill_together(model, [late, other, whole])
        assert late.failure is None and whole.failure is None
        assert_same(all_of_it, expected)
        assert_same(end, rest)


@pytest.mark.parametrize("name", PREFILLED)
def test_a_window_is_kept_to_alone_on_a_past_and_beside_others(name: str) -> None:
    model = tiny(name)
    adopt(model)
    check(model)
    assert can_pack(model)


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_that_cannot_be_prefilled_is_refused_by_name(name: str) -> None:
    with pytest.raises(Unsupported, match=f"models of type {name} cannot be prefilled here"):
        adopt(tiny(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_every_other_family_is_prefilled_as_transformers_does_or_refused(name: str) -> None:
    model = tiny(name)
    with suppress(Unsupported):
        adopt(model)
        check(model)


def test_a_model_whose_attention_is_not_ours_is_not_packed() -> None:
    model = tiny("diffllama")
    adopt(model)
    assert not can_pack(model)


def test_the_query_row_sees_no_further_than_the_window() -> None:
    model, ids = tiny("mistral"), ids_of(5 * WINDOW, 1)
    adopt(model)
    row = prefill(model, ids, last_layer=3, on_layer=lambda *_: None, asking=True)
    assert row is not None
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        weights = model(ids, output_attentions=True).attentions
    torch.testing.assert_close(row, sum(w[:, :, -1].amax(1) for w in weights), rtol=1e-4, atol=1e-5)
    assert not row[:, :-WINDOW].any()
