"""Prefill: the model's own K and V, nothing after the last needed layer, cancellation, the query row."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fuser.kv.prefill import ATTENTION, prefill
from fuser.models.load import load_model
from kvwire.errors import Cancelled

Kept = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def model(tiny_sharer: Path) -> Any:
    loaded, _ = load_model(tiny_sharer, attention=ATTENTION)
    return loaded


def collect(kept: Kept):
    return lambda _, keys, values: kept.append((keys, values))


def test_keys_and_values_are_those_of_transformers_own_cache(model: Any) -> None:
    ids = torch.randint(3, 300, (1, 33))
    kept: Kept = []
    prefill(model, ids, last_layer=3, on_layer=collect(kept))
    with torch.inference_mode():
        cache = model(ids, use_cache=True).past_key_values
    for (keys, values), layer in zip(kept, cache.layers, strict=True):
        assert torch.equal(keys, layer.keys)
        assert torch.equal(values, layer.values)


def test_nothing_runs_after_the_last_needed_keys_and_values(model: Any) -> None:
    ran: list[str] = []
    layers = model.get_decoder().layers
    hooks = [layers[1].mlp.register_forward_hook(lambda *_: ran.append("mlp 1"))]
    hooks += [layers[1].self_attn.o_proj.register_forward_hook(lambda *_: ran.append("attention 1"))]
    hooks += [layers[0].mlp.register_forward_hook(lambda *_: ran.append("mlp 0"))]
    kept: Kept = []
    try:
        prefill(model, torch.randint(3, 300, (1, 8)), last_layer=1, on_layer=collect(kept))
    finally:
        for hook in hooks:
            hook.remove()
    assert len(kept) == 2
    assert ran == ["mlp 0"]


def test_a_cancelled_prefill_stops_at_the_next_layer(model: Any) -> None:
    kept: Kept = []
    with pytest.raises(Cancelled):
        prefill(
            model,
            torch.randint(3, 300, (1, 8)),
            last_layer=3,
            on_layer=collect(kept),
            cancelled=lambda: len(kept) == 2,
        )
    assert len(kept) == 2


def test_the_query_row_is_the_models_own_attention(model: Any) -> None:
    ids = torch.randint(3, 300, (1, 21))
    row = prefill(model, ids, last_layer=3, on_layer=collect([]), asking=True, first_query_layer=1)
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            weights = model(ids, output_attentions=True).attentions
    finally:
        model.set_attn_implementation(ATTENTION)
    expected = sum(w[:, :, -1].amax(1) for w in weights[1:])
    torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)


def test_a_prefill_on_top_of_an_earlier_one_gives_the_same_numbers(model: Any) -> None:
    ids = torch.randint(3, 300, (1, 30))
    whole: Kept = []
    scores = prefill(model, ids, last_layer=3, on_layer=collect(whole), asking=True)
    first: Kept = []
    prefill(model, ids[:, :18], last_layer=3, on_layer=collect(first))
    rest: Kept = []
    again = prefill(model, ids[:, 18:], last_layer=3, on_layer=collect(rest), asking=True, past=first)
    for (keys, values), (late_keys, late_values) in zip(whole, rest, strict=True):
        torch.testing.assert_close(late_keys, keys[:, :, 18:], rtol=0, atol=1e-4)
        torch.testing.assert_close(late_values, values[:, :, 18:], rtol=0, atol=1e-4)
    torch.testing.assert_close(again, scores, rtol=0, atol=1e-4)


def test_k_and_v_of_a_past_are_not_repeated_for_each_query_head(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.randint(3, 300, (1, 60))
    past: Kept = []
    prefill(model, ids[:, :40], last_layer=3, on_layer=collect(past))
    attended: list[tuple[int, ...]] = []
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def watched(query: torch.Tensor, keys: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        attended.append((query.shape[1], keys.shape[1], more.get("enable_gqa", False)))
        return sdpa(query, keys, *rest, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    for new in (20, 1):
        kept: Kept = []
        prefill(model, ids[:, 40 : 40 + new], last_layer=3, on_layer=collect(kept), past=past)
        whole: Kept = []
        prefill(model, ids[:, : 40 + new], last_layer=3, on_layer=collect(whole))
        for (keys, values), (wanted_keys, wanted_values) in zip(kept, whole, strict=True):
            torch.testing.assert_close(keys, wanted_keys[:, :, 40:], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(values, wanted_values[:, :, 40:], rtol=1e-4, atol=1e-5)
    kv_heads = model.config.num_key_value_heads
    on_a_past = [one for one in attended if not one[2]]
    assert model.config.num_attention_heads > kv_heads
    assert on_a_past == [(kv_heads, kv_heads, False)] * 6  # the last layer's is not computed
