"""Quantisation noise: as large as what the codec of 8 bits does, and no larger."""

import pytest
import torch

from fuser.lab.train.noise import quantisation_noise
from kvwire.codec.scalar import Int8
from kvwire.segment import SegmentKind, SegmentSpec


@pytest.mark.parametrize(
    ("kind", "shape", "axis"),
    [
        (SegmentKind.KEY, (2, 50, 16), -2),
        (SegmentKind.VALUE, (2, 50, 16), -1),
        (SegmentKind.CODE, (50, 64), -1),
    ],
)
def test_noise_is_as_large_as_the_codecs_own_error(
    kind: SegmentKind, shape: tuple[int, ...], axis: int
) -> None:
    tensor = torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * torch.linspace(
        0.1, 9, shape[-1]
    )
    layer = -1 if kind is SegmentKind.CODE else 0
    spec = SegmentSpec(0, kind, layer, shape, "float32")
    decoded = Int8().decode(Int8().encode(tensor, spec), spec)
    torch.manual_seed(2)
    noisy = quantisation_noise(tensor, 8, axis)
    errors = [(other - tensor).square().mean(axis) for other in (decoded, noisy)]
    ratio = (errors[1].sqrt() / errors[0].sqrt()).mean()
    assert 0.9 < float(ratio) < 1.15
    step = tensor.abs().amax(axis, keepdim=True) / 127
    assert bool(((noisy - tensor).abs() <= 0.501 * step).all())


def test_no_bits_no_noise_and_padding_stays_zero() -> None:
    tensor = torch.randn(3, 4)
    assert quantisation_noise(tensor, 0, -1) is tensor
    tensor[1] = 0
    assert torch.equal(quantisation_noise(tensor, 8, -1)[1], tensor[1])


def test_the_gradient_passes_as_if_there_were_no_noise() -> None:
    tensor = torch.randn(3, 4, requires_grad=True)
    quantisation_noise(tensor, 4, -1).sum().backward()
    assert torch.equal(tensor.grad, torch.ones(3, 4))


def test_bits_that_no_codec_has_are_refused() -> None:
    with pytest.raises(ValueError, match="between 2 and 16, got 1"):
        quantisation_noise(torch.ones(2), 1, -1)
