import struct

import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kvwire.codec import Codec, CodecRegistry, Int8, Lossless, Raw
from kvwire.codec.base import DTYPES
from kvwire.errors import BadPayload, Unsupported
from kvwire.segment import SegmentKind, SegmentSpec
from tests.kvwire.samples import CODECS, spec_of, tensor_of, transform_of

BUILT_IN = [CODECS.get(name) for name in CODECS.names()]
EVERY = [*BUILT_IN, transform_of()]
EXACT: list[Codec] = [Raw(), Lossless()]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def bits(tensor: torch.Tensor) -> bytes:
    numbers = tensor.cpu().flatten().clone(memory_format=torch.contiguous_format)
    return bytes(numbers.view(torch.uint8).tolist()) if numbers.numel() else b""


def parametrise_specs(function: object) -> object:
    for name, values in (
        ("dtype", list(DTYPES)),
        ("kind", list(SegmentKind)),
        ("positions", [0, 1, 33]),
    ):
        function = pytest.mark.parametrize(name, values)(function)
    return function


@pytest.mark.parametrize("codec", EXACT, ids=lambda c: c.name)
@parametrise_specs
def test_an_exact_rung_gives_back_every_bit(
    codec: Codec, kind: SegmentKind, positions: int, dtype: str
) -> None:
    spec = spec_of(kind, positions, dtype)
    tensor = tensor_of(spec)
    if positions:
        tensor.view(-1)[0] = -0.0
        tensor.view(-1)[1] = torch.finfo(tensor.dtype).tiny / 2
        tensor.view(-1)[2] = torch.finfo(tensor.dtype).max
    payload = codec.encode(tensor, spec)
    assert len(payload) <= codec.max_bytes(spec)
    decoded = codec.decode(payload, spec)
    assert (decoded.dtype, tuple(decoded.shape)) == (DTYPES[dtype], spec.shape)
    assert bits(decoded) == bits(tensor)


@parametrise_specs
def test_int8_is_within_half_a_step(kind: SegmentKind, positions: int, dtype: str) -> None:
    spec = spec_of(kind, positions, dtype)
    tensor = tensor_of(spec) * 10
    payload = Int8().encode(tensor, spec)
    assert len(payload) == Int8().max_bytes(spec)
    decoded = Int8().decode(payload, spec)
    assert (decoded.dtype, tuple(decoded.shape)) == (DTYPES[dtype], spec.shape)
    if positions:
        axis = 1 if kind is SegmentKind.KEY else tensor.dim() - 1
        step = tensor.float().abs().amax(axis, keepdim=True) / 127 * (1 + 2**-7)
        rounding = decoded.float().abs() * torch.finfo(decoded.dtype).eps
        assert bool(((decoded.float() - tensor.float()).abs() <= step / 2 + rounding + 1e-9).all())


def test_a_key_has_a_step_for_each_channel_and_a_value_for_each_token() -> None:
    tensor = torch.ones(1, 4, 4)
    tensor[:, 0, :] = 1000
    value = SegmentSpec(0, SegmentKind.VALUE, 0, (1, 4, 4), "float32")
    key = SegmentSpec(0, SegmentKind.KEY, 0, (1, 4, 4), "float32")
    small_error = (Int8().decode(Int8().encode(tensor, value), value) - tensor)[:, 1:].abs().max()
    large_error = (Int8().decode(Int8().encode(tensor, key), key) - tensor)[:, 1:].abs().max()
    assert small_error < 0.01 < 0.5 < large_error
    turned = tensor.transpose(1, 2).contiguous()
    assert (Int8().decode(Int8().encode(turned, key), key) - turned)[:, :, 1:].abs().max() < 0.01


def test_int8_agrees_with_plain_arithmetic() -> None:
    spec = SegmentSpec(0, SegmentKind.CODE, -1, (2, 3), "float32")
    payload = Int8().encode(torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]]), spec)
    first, second = (struct.unpack("<f", b"\0\0" + payload[i : i + 2])[0] for i in (0, 2))
    numbers = struct.unpack("<6b", payload[4:])
    assert (first, second) == (0.015869140625, 0.0)  # 2 / 127 rounded up to bfloat16
    assert numbers == (63, -126, 32, 0, 0, 0)
    assert Int8().decode(payload, spec).tolist() == [[63 * first, -126 * first, 32 * first], [0.0] * 3]


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("scale", ["max", "tiny", "smallest"])
def test_int8_holds_at_the_ends_of_the_range(dtype: str, scale: str) -> None:
    info = torch.finfo(DTYPES[dtype])
    ends = {"max": info.max, "tiny": info.tiny, "smallest": info.smallest_normal * info.eps}[scale]
    spec = spec_of(SegmentKind.VALUE, 3, dtype)
    tensor = torch.full(spec.shape, ends, dtype=DTYPES[dtype])
    decoded = Int8().decode(Int8().encode(tensor, spec), spec)
    assert bool(torch.isfinite(decoded).all())
    if scale == "max":
        assert bool((decoded.float() / tensor.float() > 0.99).all())


@settings(max_examples=60)
@given(
    positions=st.integers(0, 40),
    heads=st.integers(1, 3),
    dim=st.integers(1, 9),
    kind=st.sampled_from(list(SegmentKind)),
    dtype=st.sampled_from(list(DTYPES)),
    scale=st.sampled_from([1e-30, 1e-4, 1.0, 300.0]),
    seed=st.integers(0, 2**32),
)
def test_round_trips_hold_for_any_shape(
    positions: int, heads: int, dim: int, kind: SegmentKind, dtype: str, scale: float, seed: int
) -> None:
    shape = (positions, dim) if kind.is_code else (heads, positions, dim)
    spec = SegmentSpec(0, kind, -1 if kind is SegmentKind.CODE else 0, shape, dtype)
    tensor = (tensor_of(spec, seed).float() * scale).to(DTYPES[dtype])
    for codec in BUILT_IN:
        payload = codec.encode(tensor, spec)
        decoded = codec.decode(payload, spec)
        assert len(payload) <= codec.max_bytes(spec)
        assert (tuple(decoded.shape), decoded.dtype) == (shape, tensor.dtype)
        if codec.name in ("raw", "lossless"):
            assert bits(decoded) == bits(tensor)


@pytest.mark.parametrize("codec", EVERY, ids=lambda c: c.name)
@pytest.mark.parametrize("device", DEVICES)
def test_every_device_encodes_and_decodes_the_same_bits(codec: Codec, device: str) -> None:
    for kind in SegmentKind:
        for dtype in DTYPES:
            spec = spec_of(kind, 33, dtype)
            tensor = tensor_of(spec)
            payload = codec.encode(tensor.to(device), spec)
            assert payload == codec.encode(tensor, spec)
            assert bits(codec.decode(payload, spec, device)) == bits(codec.decode(payload, spec))


@pytest.mark.parametrize("codec", EVERY, ids=lambda c: c.name)
def test_a_strided_tensor_is_encoded_as_it_reads(codec: Codec) -> None:
    spec = spec_of(SegmentKind.KEY, 3)
    tensor = tensor_of(spec).transpose(0, 1).contiguous().transpose(0, 1)
    assert not tensor.is_contiguous()
    assert codec.encode(tensor, spec) == codec.encode(tensor.contiguous(), spec)
    one = SegmentSpec(0, SegmentKind.CODE, -1, (1, 1), "float32")
    corner = torch.randn(5, 7)[2:3, 3:4]
    assert codec.encode(corner, one) == codec.encode(corner.clone(), one)


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_bytes_are_little_endian_on_a_big_endian_machine_too(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(SegmentKind.KEY, 3, dtype)
    tensor = tensor_of(spec)
    here = Raw().encode(tensor, spec)
    monkeypatch.setattr("sys.byteorder", "big")
    swapped = Raw().encode(tensor, spec)
    width = DTYPES[dtype].itemsize
    assert swapped == b"".join(here[i : i + width][::-1] for i in range(0, len(here), width))
    assert bits(Raw().decode(swapped, spec)) == bits(tensor)


@pytest.mark.parametrize("codec", EVERY, ids=lambda c: c.name)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_not_encoded(codec: Codec, bad: float) -> None:
    spec = spec_of()
    tensor = tensor_of(spec)
    tensor[0, 0, 0] = bad
    with pytest.raises(BadPayload):
        codec.encode(tensor, spec)


@pytest.mark.parametrize("codec", EVERY, ids=lambda c: c.name)
def test_a_tensor_that_is_not_the_specs_is_refused(codec: Codec) -> None:
    spec = spec_of()
    with pytest.raises(ValueError):
        codec.encode(tensor_of(spec)[:1], spec)
    with pytest.raises(ValueError):
        codec.encode(tensor_of(spec).double(), spec)


def test_a_large_segment_keeps_its_zstd_window_small() -> None:
    spec = SegmentSpec(0, SegmentKind.CODE, -1, (3 << 20, 1), "float32")
    payload = Lossless().encode(torch.arange(3 << 20).float().reshape(-1, 1), spec)
    frame = zstandard.get_frame_parameters(payload)
    assert frame.content_size == 12 << 20
    assert frame.window_size <= 8 << 20
    assert Lossless().decode(payload, spec)[-1].item() == (3 << 20) - 1


def test_lossless_is_smaller_than_raw_for_numbers_of_one_size() -> None:
    spec = spec_of(SegmentKind.KEY, 400, "bfloat16")
    assert len(Lossless().encode(tensor_of(spec), spec)) < 0.9 * spec.raw_bytes


def test_the_registry_knows_its_codecs_and_refuses_others() -> None:
    assert CodecRegistry().names() == (
        *("raw", "lossless", "int8", "int4"),
        *("hadamard-4", "hadamard-3", "hadamard-2"),
    )
    with pytest.raises(Unsupported, match="int3"):
        CodecRegistry().get("int3")


def test_a_bundle_may_bring_a_codec_but_not_replace_one() -> None:
    class Pca(Raw):
        name = "pca"  # type: ignore[misc]
        parameters_hash = "1234"  # type: ignore[misc]

    registry = CodecRegistry([Pca()])
    assert isinstance(registry.get("pca"), Codec)
    assert registry.refs()[-1].parameters_hash == "1234"
    with pytest.raises(ValueError):
        CodecRegistry([Raw()])
