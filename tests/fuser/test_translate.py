"""The translate head and its closed-form start."""

from typing import Any

import pytest
import torch

from fuser.heads.translate import TranslateConfig, TranslateHead, features_of, split_kv
from fuser.kv.geometry import Geometry
from fuser.lab.train.regress import Moments, start_in_closed_form

SHARER, RECEIVER = Geometry(3, 2, 4), Geometry(2, 1, 6)


def rows(seed: int, count: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Features, and targets that are a noisy linear map of rank 5 of them."""
    shape = torch.Generator().manual_seed(1)
    left, right = (torch.randn(*size, generator=shape) for size in ((SHARER.width, 5), (5, RECEIVER.width)))
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, SHARER.width, generator=generator) + 0.5
    return features, features @ left @ right + 3 + noise * torch.randn(
        count, RECEIVER.width, generator=generator
    )


def fit(noise: float, **shape: Any) -> torch.Tensor:
    """Share of variance explained on unseen rows, (layers, 2)."""
    head = TranslateHead(TranslateConfig(**shape), SHARER, RECEIVER)
    moments = Moments.empty(SHARER.width, RECEIVER.width)
    for seed in range(2, 40):
        moments.add(*rows(seed, 40, noise))
    start_in_closed_form(head, moments, RECEIVER, ridge=1e-6)
    features, targets = rows(1000, 160, noise)
    with torch.no_grad():
        error = (head.expand(head.encode(features)) - targets).square().sum(0)
    total = (targets - targets.mean(0)).square().sum(0)
    return 1 - error.reshape(2, 2, 6).sum(2) / total.reshape(2, 2, 6).sum(2)


def test_a_code_of_the_maps_rank_explains_all_of_it_on_unseen_rows() -> None:
    assert fit(0.0, code_dim=5).min() > 0.999
    assert fit(0.0, code_dim=9).min() > 0.999
    assert fit(0.0, code_dim=60).min() > 0.999  # more than there are features or outputs


def test_a_code_below_the_rank_explains_less_and_noise_is_not_explained() -> None:
    short, noisy = fit(0.0, code_dim=2), fit(5.0, code_dim=5)
    assert 0.3 < short.mean() < 0.95
    assert noisy.mean() < 0.95


def test_features_and_split_lay_out_layers_halves_heads_and_channels() -> None:
    keys, values = torch.randn(3, 2, 7, 4), torch.randn(3, 2, 7, 4)
    flat = features_of(keys, values)
    assert flat.shape == (7, SHARER.width)
    again_keys, again_values = split_kv(flat, SHARER)
    assert torch.equal(again_keys, keys)
    assert torch.equal(again_values, values)


def test_a_code_becomes_two_positions_of_which_each_has_its_own_targets() -> None:
    head = TranslateHead(TranslateConfig(code_dim=10, receiver_positions=2), SHARER, RECEIVER)
    moments = Moments.empty(SHARER.width, 2 * RECEIVER.width)
    for seed in range(2, 40):
        features, targets = rows(seed, 40, 0.0)
        moments.add(features, torch.cat((targets, 1 - 2 * targets), dim=1))
    start_in_closed_form(head, moments, RECEIVER, ridge=1e-6)
    features, targets = rows(1000, 6, 0.0)
    with torch.no_grad():
        one_by_one = head.expand(head.encode(features.view(2, 3, -1)))
        assert one_by_one.shape == (2, 6, RECEIVER.width)
        first, second = one_by_one.flatten(0, 1).unflatten(0, (6, 2)).unbind(1)
    torch.testing.assert_close(first, targets, atol=0.02, rtol=0.02)
    torch.testing.assert_close(second, 1 - 2 * targets, atol=0.02, rtol=0.02)


def test_what_codes_are_expanded_to_has_its_spread_as_unit() -> None:
    head = TranslateHead(TranslateConfig(code_dim=6, receiver_positions=2), SHARER, RECEIVER)
    head.output_scale.uniform_(0.5, 2)
    head.output_mean.uniform_(-1, 1)
    codes = torch.randn(3, 6)
    torch.testing.assert_close(
        (head.in_units(codes) * head.output_scale).view(6, -1), head.expand(codes), atol=1e-6, rtol=1e-6
    )


def test_no_positions_is_a_slice_of_nothing() -> None:
    head = TranslateHead(TranslateConfig(code_dim=6), SHARER, RECEIVER)
    assert head.expand(head.encode(torch.zeros(0, SHARER.width))).shape == (0, RECEIVER.width)
    assert head.prefix_kv().shape == (0, RECEIVER.width)


@pytest.mark.parametrize("layers", [(1, 0), (1, 1)])
def test_layers_out_of_order_are_refused(layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        TranslateConfig(code_dim=4, sharer_layers=layers)


def test_a_layer_the_sharer_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="layer 3 of 3"):
        TranslateHead(TranslateConfig(code_dim=4, sharer_layers=(0, 3)), SHARER, RECEIVER)
