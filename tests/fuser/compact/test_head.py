"""The compact fuse head: small, an exact identity when closed, the same by layer and all at once."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fuser.heads.compact import CompactConfig, CompactFuse, binary_concrete
from fuser.heads.fuse import KEYS, VALUES
from fuser.kv.geometry import Geometry, LayerMap
from kvwire.segment import SegmentKind

SHARER, RECEIVER = Geometry(3, 2, 8), Geometry(4, 1, 16)
MAP = LayerMap.custom({1: 0, 2: 0, 3: 2}, 4, 3)  # nothing feeds layer 0
PLAIN = CompactConfig(MAP, rank=8, inner=12)
DEMO_SHARER, DEMO_RECEIVER, DEMO_PARAMETERS = Geometry(24, 2, 64), Geometry(30, 3, 64), 134_515_008
K, V, BOTH = range(1), range(1, 2), range(2)


def head(logit: float = 1.0) -> CompactFuse:
    """Random in every weight, so that nothing is zero by chance of initialisation."""
    torch.manual_seed(2)
    made = CompactFuse(PLAIN, SHARER, RECEIVER).eval()
    for parameter in made.parameters():
        parameter.data.normal_(std=0.3)
    made.gate_logit.data.fill_(logit)
    return made


def gate(fuse: CompactFuse, layer: int, half: int, logit: float) -> None:
    fuse.gate_logit.data[fuse.row[layer], half] = logit


def caches(batch: int = 2, positions: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """K and V of the Sharer as the map feeds them, K and V of the Receiver; Receiver layers outermost."""
    generator = torch.Generator().manual_seed(3)
    sharer = (4, batch, 2, positions, 8)
    receiver = (4, batch, 1, positions, 16)
    keys, values, mine, my_values = (
        torch.randn(shape, generator=generator) for shape in (sharer, sharer, receiver, receiver)
    )
    return keys, values, mine, my_values


def test_an_untrained_head_is_the_exact_identity_and_needs_nothing() -> None:
    untrained = CompactFuse(PLAIN, SHARER, RECEIVER).eval()
    whole = caches()
    layer = [half[1] for half in whole]
    keys, values = untrained.fuse_layer(1, *layer)
    assert keys is layer[2]
    assert values is layer[3]
    assert untrained.fuse(range(4), *whole)[0] is whole[2]
    assert untrained.needed() == []
    assert untrained.open_layers() == [(False, False)] * 4


def test_an_open_gate_with_an_untrained_projection_changes_nothing_yet() -> None:
    untrained = CompactFuse(PLAIN, SHARER, RECEIVER).eval()
    untrained.gate_logit.data.fill_(1.0)
    layer = [half[1] for half in caches()]
    assert torch.equal(untrained.fuse_layer(1, *layer)[0], layer[2])


def test_each_gate_opens_its_own_half_and_asks_for_its_segment_once() -> None:
    fuse = head(logit=-1.0)
    gate(fuse, 1, VALUES, 0.5)
    gate(fuse, 2, VALUES, 0.5)
    gate(fuse, 3, KEYS, 0.5)
    assert fuse.open_layers() == [(False, False), (False, True), (False, True), (True, False)]
    assert fuse.needed() == [(SegmentKind.VALUE, 0), (SegmentKind.KEY, 2)]
    layer = [half[1] for half in caches()]
    keys, values = fuse.fuse_layer(1, *layer)
    assert keys is layer[2]
    assert not torch.equal(values, layer[3])


def test_a_gate_at_exactly_0_is_closed() -> None:
    layer = [half[1] for half in caches()]
    assert head(logit=0.0).fuse_layer(1, *layer)[0] is layer[2]


def test_a_segment_that_did_not_arrive_leaves_the_receivers_own() -> None:
    layer = [half[1] for half in caches()]
    keys, values = head().fuse_layer(1, None, layer[1], layer[2], layer[3])
    assert keys is layer[2]
    assert not torch.equal(values, layer[3])


def test_all_layers_at_once_equal_one_layer_at_a_time() -> None:
    fuse = head()
    gate(fuse, 2, KEYS, -1.0)
    whole = caches()
    keys, values = fuse.fuse(range(4), *whole)
    for layer in range(4):
        one_keys, one_values = fuse.fuse_layer(layer, *(half[layer] for half in whole))
        torch.testing.assert_close(keys[layer], one_keys, rtol=0, atol=1e-5)
        torch.testing.assert_close(values[layer], one_values, rtol=0, atol=1e-5)
    assert torch.equal(keys[0], whole[2][0])
    assert torch.equal(keys[2], whole[2][2])
    assert not torch.equal(keys[1], whole[2][1])


def test_closing_a_layer_leaves_the_others_as_they_were() -> None:
    fuse, whole = head(), caches()
    every, _ = fuse.fuse(range(4), *whole)
    gate(fuse, 2, KEYS, -1.0)
    gate(fuse, 2, VALUES, -1.0)
    without, _ = fuse.fuse(range(4), *whole)
    torch.testing.assert_close(without[[1, 3]], every[[1, 3]], rtol=0, atol=1e-5)
    assert torch.equal(without[2], whole[2][2])


def test_positions_and_batch_do_not_mix() -> None:
    fuse = head()
    layer = [half[3] for half in caches()]
    whole, _ = fuse.fuse_layer(3, *layer)
    part, _ = fuse.fuse_layer(3, *(half[1:, :, 2:4] for half in layer))
    torch.testing.assert_close(part, whole[1:, :, 2:4], rtol=0, atol=1e-5)


def test_the_source_half_can_be_computed_elsewhere_and_is_as_wide_as_its_layer() -> None:
    fuse = head()
    layer = [half[1] for half in caches()]
    expected = torch.stack(fuse.fuse_layer(1, *layer))
    for halves in (BOTH, K, V):
        sharer, receiver = torch.stack(layer[:2])[list(halves)], torch.stack(layer[2:])[list(halves)]
        code = fuse.source_half(1, halves, sharer)
        assert code.shape == (len(halves), 2, 5, PLAIN.rank)
        fused = fuse.fuse_from_half(1, halves, code, receiver)
        torch.testing.assert_close(fused, expected[list(halves)], rtol=0, atol=1e-6)


def test_standardised_heads_move_in_units_of_the_receivers_spread() -> None:
    plain, scaled = head(), head()
    ones = torch.ones(4, 2, 16)
    scaled.standardise((5 * ones, 3 * ones), (7 * ones, 100 * ones))
    sharer_keys, sharer_values, keys, values = (half[1] for half in caches())
    moved, _ = plain.fuse_layer(1, sharer_keys, sharer_values, keys, values)
    moved_far, _ = scaled.fuse_layer(
        1, sharer_keys * 3 + 5, sharer_values * 3 + 5, keys * 100 + 7, values * 100 + 7
    )
    torch.testing.assert_close(moved_far, moved * 100 + 7, rtol=1e-4, atol=1e-3)


def test_each_layer_and_half_is_standardised_by_its_own_statistics() -> None:
    plain, scaled = head(), head()
    mean = torch.arange(8.0).reshape(4, 2, 1).expand(4, 2, 16)
    scaled.standardise((mean, torch.ones(4, 2, 16)), (torch.zeros(4, 2, 16), torch.ones(4, 2, 16)))
    sharer_keys, sharer_values, keys, values = (half[3] for half in caches())
    expected = plain.fuse_layer(3, sharer_keys, sharer_values, keys, values)
    shifted = scaled.fuse_layer(3, sharer_keys + 6, sharer_values + 7, keys, values)
    torch.testing.assert_close(shifted, expected, rtol=0, atol=1e-5)


def test_a_half_precision_cache_comes_back_in_its_own_dtype() -> None:
    whole = [half.bfloat16() for half in caches()]
    keys, values = head().fuse_layer(1, *(half[1] for half in whole))
    assert keys.dtype == values.dtype == torch.bfloat16
    assert {half.dtype for half in head().fuse(range(4), *whole)} == {torch.bfloat16}


def test_training_reaches_every_number_of_every_parameter() -> None:
    fuse = head().train()
    keys, values = fuse.fuse(range(4), *caches())
    (keys.square().sum() + values.square().sum()).backward()
    for name, parameter in fuse.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).all()), name


def test_a_training_gate_is_open_as_often_as_its_logit_says() -> None:
    torch.manual_seed(0)
    for logit in (-1.0, 0.0, 2.0):
        for temperature in (1.0, 0.01):
            gates = binary_concrete(torch.full((20_000,), logit), temperature)
            share = float((gates > 0.5).float().mean())
            assert share == pytest.approx(float(torch.tensor(logit).sigmoid()), abs=0.015)
            assert bool(gates.isfinite().all())


def test_a_training_gate_is_drawn_once_per_prompt() -> None:
    fuse = head(logit=0.0).train()
    fuse.temperature = 0.01
    torch.manual_seed(5)
    layer = [half[1] for half in caches(batch=64)]
    moved = (fuse.fuse_layer(1, *layer)[0] - layer[2]).abs().amax((1, 3))  # (prompts, positions)
    opened = moved > 1e-3
    assert bool((opened.all(1) | ~opened.any(1)).all())
    assert 10 < int(opened.all(1).sum()) < 54


def test_cold_training_gates_that_are_sure_equal_evaluation() -> None:
    fuse = head(logit=40.0)
    expected = fuse.fuse(range(4), *caches())
    fuse.train().anneal(10**6)
    assert fuse.temperature == pytest.approx(PLAIN.final_temperature)
    torch.testing.assert_close(fuse.fuse(range(4), *caches()), expected, rtol=0, atol=1e-5)


def test_it_is_at_most_a_tenth_of_the_demo_receiver() -> None:
    config = CompactConfig(LayerMap.terminal(30, 24))
    with torch.device("meta"):
        assert CompactFuse(config, DEMO_SHARER, DEMO_RECEIVER).parameter_count < DEMO_PARAMETERS // 10


@pytest.mark.parametrize("shape", [(2, 2, 5, 16), (2, 1, 4, 8), (1, 2, 5, 8), (2, 2, 8)])
def test_sharer_shapes_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    layer = [half[1] for half in caches()]
    with pytest.raises(ValueError, match="sharer is"):
        head().fuse_layer(1, torch.zeros(shape), None, layer[2], layer[3])
    keys, values, mine, my_values = caches()
    with pytest.raises(ValueError, match="sharer is"):
        head().fuse(range(4), torch.zeros(4, *shape), values, mine, my_values)
    with pytest.raises(ValueError, match="expected 4 layers"):
        head().fuse(range(4), keys[:3], values, mine, my_values)


def test_a_map_for_other_models_is_refused() -> None:
    with pytest.raises(ValueError, match="this one has 5"):
        CompactFuse(CompactConfig(MAP), SHARER, Geometry(5, 1, 16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 0}, "rank and inner"),
        ({"final_temperature": 0.0}, "gate temperatures must be positive"),
        ({"anneal_steps": 0}, "anneal_steps must be positive"),
    ],
)
def test_a_shape_without_meaning_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, **change)
