"""The round trip of a codec: each tensor for itself, its bytes counted, its gradient as if nothing had happened."""

import torch

from kvwire.codec import CodecRegistry, roundtrip
from kvwire.segment import SegmentKind, SegmentSpec

SPEC = SegmentSpec(0, SegmentKind.CODE, -1, (5, 64), "float32")


def test_codes_go_through_the_codec_slice_by_slice_and_the_gradient_passes() -> None:
    codes = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    codec = CodecRegistry().get("hadamard-2")
    arrived, sizes = roundtrip(codec, codes, SPEC)
    for sent, code, size in zip(codes.detach(), arrived.detach(), sizes, strict=True):
        payload = codec.encode(sent, SPEC)
        assert torch.equal(code, codec.decode(payload, SPEC)) and size == len(payload)
    assert not torch.allclose(arrived, codes)
    arrived.sum().backward()
    assert torch.equal(codes.grad, torch.ones(3, 5, 64))


def test_without_a_gradient_there_is_none_and_no_tensor_need_be_contiguous() -> None:
    codes = torch.randn(5, 64, 3, generator=torch.Generator().manual_seed(2)).movedim(2, 0)
    codec = CodecRegistry().get("raw")
    arrived, sizes = roundtrip(codec, codes, SPEC)
    assert torch.equal(arrived, codes) and not arrived.requires_grad
    assert sizes == [5 * 64 * 4] * 3
