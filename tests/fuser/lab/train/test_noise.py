"""Quantisation noise: as large as what the codec of 8 bits does, and no larger."""

import torch

from fuser.lab.train.document import quantisation_noise
from kvwire.codec.scalar import Int8
from kvwire.segment import SegmentKind, SegmentSpec


def test_noise_is_as_large_as_the_codecs_own_error() -> None:
    codes = torch.randn(50, 64, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.1, 9, 64)
    spec = SegmentSpec(0, SegmentKind.CODE, -1, (50, 64), "float32")
    decoded = Int8().decode(Int8().encode(codes, spec), spec)
    torch.manual_seed(2)
    noisy = quantisation_noise(codes, 8)
    errors = [(other - codes).square().mean(-1) for other in (decoded, noisy)]
    ratio = (errors[1].sqrt() / errors[0].sqrt()).mean()
    assert 0.9 < float(ratio) < 1.15
    step = codes.abs().amax(-1, keepdim=True) / 127
    assert bool(((noisy - codes).abs() <= 0.501 * step).all())


def test_no_bits_no_noise() -> None:
    tensor = torch.randn(3, 4)
    assert quantisation_noise(tensor, 0) is tensor


def test_the_gradient_passes_as_if_there_were_no_noise() -> None:
    tensor = torch.randn(3, 4, requires_grad=True)
    quantisation_noise(tensor, 4).sum().backward()
    assert torch.equal(tensor.grad, torch.ones(3, 4))
