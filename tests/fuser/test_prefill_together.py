"""Prompts prefilled together: each gets the bits it gets alone, and none suffers from another."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fuser.kv.prefill import ATTENTION, EXACT_FROM, Prefill, can_pack, prefill, prefill_together
from fuser.models.load import load_model
from kvwire.errors import Cancelled

Kept = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def model(request: pytest.FixtureRequest, tiny_sharer: Path) -> Any:
    loaded, _ = load_model(tiny_sharer, attention=ATTENTION, dtype=getattr(torch, request.param))
    return loaded


def work(length: int, seed: int, **more: Any) -> tuple[Prefill, Kept]:
    kept: Kept = []
    ids = torch.randint(3, 300, (1, length), generator=torch.Generator().manual_seed(seed))
    more = {"last_layer": 3, "on_layer": lambda _, keys, values: kept.append((keys, values))} | more
    return Prefill(ids, **more), kept


def same(one: Kept, other: Kept) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for first, second in pairs for a, b in zip(first, second, strict=True))


def test_every_prompt_has_the_bits_it_has_alone(model: Any) -> None:
    past: Kept = []
    prefill(model, torch.randint(3, 300, (1, 40)), last_layer=3, on_layer=lambda _, k, v: past.append((k, v)))
    asked: list[dict[str, Any]] = [
        {"asking": True, "first_query_layer": 1},
        {"past": past},
        {"past": past, "asking": True, "per_head": True},
        {"last_layer": 1},
    ]
    lengths = (EXACT_FROM, 37, 21, 130)
    alone = [work(n, i, **more) for i, (n, more) in enumerate(zip(lengths, asked, strict=True))]
    for one, _ in alone:
        prefill_together(model, [one])
    beside = [work(n, i, **more) for i, (n, more) in enumerate(zip(lengths, asked, strict=True))]
    prefill_together(model, [one for one, _ in beside])
    for (first, kept), (second, others) in zip(alone, beside, strict=True):
        assert first.failure is None and second.failure is None
        assert same(kept, others)
        assert (first.scores is None) == (second.scores is None)
        assert first.scores is None or torch.equal(first.scores, second.scores)
    assert [len(kept) for _, kept in beside] == [4, 4, 4, 2]


def test_one_that_is_cancelled_and_one_that_breaks_leave_the_others_alone(model: Any) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("broken")

    fine, kept = work(20, 1)
    again, expected = work(20, 1)
    prefill_together(model, [again])
    polled: list[int] = []
    gone, gone_kept = work(24, 2, cancelled=lambda: polled.append(1) or len(polled) > 2)
    bad, _ = work(30, 3, on_layer=broken)
    prefill_together(model, [fine, gone, bad])
    assert same(kept, expected)
    assert fine.failure is None
    assert isinstance(gone.failure, Cancelled) and len(gone_kept) == 2
    assert isinstance(bad.failure, RuntimeError)


def test_nothing_runs_once_nobody_needs_it(model: Any) -> None:
    ran: list[int] = []
    hooks = [
        layer.mlp.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(model.get_decoder().layers)
    ]
    one, _ = work(20, 1, last_layer=1)
    two, _ = work(20, 2, last_layer=2, asking=True)
    prefill_together(model, [one, two])
    for hook in hooks:
        hook.remove()
    assert ran == [0, 1]
    assert two.scores is not None


def test_another_prefill_may_run_between_two_layers(model: Any) -> None:
    inner, inner_kept = work(30, 5)
    outer, outer_kept = work(50, 6, asking=True)
    expected = [work(30, 5), work(50, 6, asking=True)]
    for one, _ in expected:
        prefill_together(model, [one])
    pending = [inner]
    prefill_together(model, [outer], lambda: prefill_together(model, [pending.pop()]) if pending else None)
    assert same(inner_kept, expected[0][1]) and same(outer_kept, expected[1][1])
    assert torch.equal(outer.scores, expected[1][0].scores)


def test_whatever_else_runs_between_two_layers_is_no_part_of_the_prefill(model: Any) -> None:
    ids = torch.randint(3, 300, (1, 30), generator=torch.Generator().manual_seed(7))
    (expected, _), (outer, _) = work(50, 6, asking=True), work(50, 6, asking=True)
    prefill_together(model, [expected])
    with torch.inference_mode():
        alone = model(ids).logits
        seen: list[torch.Tensor] = []
        prefill_together(model, [outer], lambda: seen.append(model(ids).logits))
    assert all(torch.equal(logits, alone) for logits in seen) and len(seen) == 4
    assert torch.equal(outer.scores, expected.scores)


def test_a_standard_model_is_packed(model: Any) -> None:
    assert can_pack(model)
