"""The rungs that keep to a rate: hadamard and transform."""

from dataclasses import replace

import pytest
import torch

from kvwire.codec import Basis, Codec, Hadamard, Int4, Transform
from kvwire.errors import BadPayload, Unsupported
from kvwire.segment import SegmentKind, SegmentSpec
from tests.kvwire.samples import basis_of, spec_of, tensor_of, transform_of

WIDE = SegmentSpec(0, SegmentKind.VALUE, 3, (2, 50, 64), "float32")
KEYS = replace(WIDE, kind=SegmentKind.KEY)
CODES = SegmentSpec(0, SegmentKind.CODE, -1, (16, 128), "float32")


def along(basis: Basis, positions: int, seed: int = 0) -> torch.Tensor:
    """Positions that vary as the basis says, (positions, n)."""
    drawn = torch.randn(positions, len(basis.spread), generator=torch.Generator().manual_seed(seed))
    return basis.mean + (drawn * basis.spread) @ basis.synthesis.float().T


def steep(width: int) -> Basis:
    return replace(basis_of(width), spread=8 * 2.0 ** (-torch.arange(width) / 16))


def error(codec: Codec, tensor: torch.Tensor, spec: SegmentSpec) -> float:
    """Squared error of a round trip in parts of the variance."""
    decoded = codec.decode(codec.encode(tensor, spec), spec)
    return float((decoded - tensor).square().mean() / tensor.var())


def test_more_bits_make_less_error_and_no_payload_is_over_its_rate() -> None:
    basis = steep(128)
    tensor, place = along(basis, 16), (SegmentKind.CODE, -1, 128)
    ladder = [Transform(rate, {place: basis}, {place: rate}) for rate in (4, 2, 1, 0.5, 0.25)]
    errors = [error(codec, tensor, CODES) for codec in ladder]
    assert errors == sorted(errors) and errors[0] < 0.01 and errors[-1] < 0.5
    for codec, rate in zip(ladder, (4, 2, 1, 0.5, 0.25), strict=True):
        sizes = [len(codec.encode(along(basis, 16, seed), CODES)) for seed in range(20)]
        cap = 2 + rate * CODES.elements / 8
        assert codec.max_bytes(CODES) == cap and 0.9 * cap < min(sizes) and max(sizes) <= cap


def test_hadamard_keeps_to_its_rate_and_its_error_is_that_of_normal_numbers() -> None:
    tensor = torch.randn(WIDE.shape, generator=torch.Generator().manual_seed(1))
    errors = [error(Hadamard(rate), tensor, WIDE) for rate in (4, 3, 2)]
    assert (
        errors[0] < 0.009 and errors[1] < 0.037 and errors[2] < 0.12
    )  # peers' 4 bits in groups of 32: 0.0082


def test_a_channel_that_stands_out_costs_hadamard_little_and_a_mean_costs_a_key_little() -> None:
    tensor = torch.randn(WIDE.shape, generator=torch.Generator().manual_seed(1))
    loud = torch.ones(64)
    loud[7] = 10
    decoded = Hadamard(3).decode(Hadamard(3).encode(tensor * loud, WIDE), WIDE)
    assert float((decoded - tensor * loud).square().mean()) < 0.035 * float((tensor * loud).square().mean())
    far = tensor + 20 * torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(2))
    as_key, as_value = (
        float((codec.decode(codec.encode(far, spec), spec) - far).square().mean())
        for codec, spec in ((Hadamard(3), KEYS), (Hadamard(3), WIDE))
    )
    assert as_key < 0.05 < 1 < as_value


@pytest.mark.parametrize("channels", [1, 3, 6, 48, 512])
def test_hadamard_takes_any_number_of_channels(channels: int) -> None:
    spec = replace(CODES, shape=(5, channels))
    tensor = torch.randn(spec.shape, generator=torch.Generator().manual_seed(3))
    assert error(Hadamard(4), tensor, spec) < 0.05


def test_int4_spans_what_a_group_holds_and_not_the_way_from_zero() -> None:
    tensor = torch.randn(KEYS.shape, generator=torch.Generator().manual_seed(4)) + 100
    decoded = Int4().decode(Int4().encode(tensor, KEYS), KEYS)
    assert (
        float((decoded - tensor).abs().max()) < 0.6
    )  # four or five spreads in fifteen steps, and the lowest's rounding
    assert len(Int4().encode(tensor, KEYS)) == 4 * 2 * 64 * 2 + KEYS.elements // 2


def test_int4_agrees_with_plain_arithmetic() -> None:
    spec = SegmentSpec(0, SegmentKind.CODE, -1, (1, 3), "float32")
    payload = Int4().encode(torch.tensor([[-1.0, 0.0, 14.0]]), spec)
    assert payload == bytes.fromhex("80bf803f100f")  # lowest -1, step 1; 0, 1 and 15 steps
    assert Int4().decode(payload, spec).tolist() == [[-1.0, 0.0, 14.0]]
    with pytest.raises(BadPayload, match="after the last"):
        Int4().decode(payload[:-1] + b"\xfe", spec)


def test_a_code_of_which_only_the_first_numbers_are_sent_has_the_next_larger_basis() -> None:
    codec = transform_of(8.0)
    for numbers in (3, 4, 7):
        spec = replace(spec_of(SegmentKind.CODE), shape=(30, numbers))
        tensor = along(basis_of(4 if numbers <= 4 else 8, 7 if numbers <= 4 else 2), 30)[
            :, :numbers
        ].contiguous()
        assert error(codec, tensor, spec) < 0.02
    with pytest.raises(Unsupported, match="9 numbers"):
        codec.max_bytes(replace(spec_of(SegmentKind.CODE), shape=(30, 9)))


def test_a_segment_without_a_basis_is_refused_before_anything_is_read() -> None:
    spec = replace(spec_of(), layer=6)
    for call in (lambda: transform_of().max_bytes(spec), lambda: transform_of().decode(b"\x80\x3f", spec)):
        with pytest.raises(Unsupported, match="layer 6"):
            call()


def test_the_parameter_hash_covers_rate_bases_and_bits() -> None:
    place = (SegmentKind.CODE, -1, 8)
    basis = basis_of(8)
    nudged = basis.synthesis.clone()
    nudged[3, 4] += 2**-10
    others = [
        Transform(2, {place: replace(basis, synthesis=nudged)}, {place: 2}),
        Transform(2, {place: replace(basis, mean=basis.mean + 1)}, {place: 2}),
        Transform(2, {place: replace(basis, spread=basis.spread * 2)}, {place: 2}),
        Transform(2, {place: basis}, {place: 1.5}),
        Transform(1, {place: basis}, {place: 2}),
    ]
    ours = Transform(2, {place: basis}, {place: 2})
    assert len({ours.parameters_hash, *(codec.parameters_hash for codec in others)}) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"spread": torch.tensor([1.0, 2.0])},
        {"spread": torch.tensor([1.0, -1.0])},
        {"spread": torch.tensor([torch.inf, 1.0])},
        {"mean": torch.tensor([torch.nan, 1.0])},
        {"synthesis": torch.full((2, 2), 60_000.0).half()},
        {"synthesis": torch.full((2, 2), torch.nan).half()},
        {"synthesis": torch.eye(2)},
        {"mean": torch.zeros(3)},
    ],
)
def test_a_basis_that_no_calibration_gives_is_refused(change: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError):
        replace(basis_of(2), **change)


def test_decoded_bits_do_not_depend_on_the_number_of_threads_or_the_order_of_sums() -> None:
    basis = steep(128)
    place = (SegmentKind.CODE, -1, 128)
    codec = Transform(3, {place: basis}, {place: 3})
    spec = replace(CODES, shape=(400, 128))
    payload = codec.encode(along(basis, 400), spec)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(codec.decode(payload, spec))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found[1:])
    order = torch.randperm(128, generator=torch.Generator().manual_seed(5)).numpy()
    symbols = (
        torch.randint(-(2**15), 2**15, (10, 128), generator=torch.Generator().manual_seed(6)).double().numpy()
    )
    sums = symbols @ basis.columns.T
    assert (sums == symbols[:, order] @ basis.columns[:, order].T).all()
    assert (sums == sum(symbols[:, [i]] * basis.columns[:, i] for i in range(128))).all()


def test_one_codec_serves_several_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    codec, specs = transform_of(), [spec_of(kind, 20) for kind in SegmentKind] * 4
    alone = [codec.encode(tensor_of(spec), spec) for spec in specs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda spec: transform_of().encode(tensor_of(spec), spec), specs)) == alone
        assert list(pool.map(lambda spec: codec.encode(tensor_of(spec), spec), specs)) == alone


def test_a_few_bytes_for_a_large_segment_are_refused_before_it_is_allocated() -> None:
    import tracemalloc

    place = (SegmentKind.CODE, -1, 128)
    codec = Transform(1, {place: steep(128)}, {place: 1.0})
    spec = replace(CODES, shape=(1 << 18, 128))
    tracemalloc.start()
    try:
        for one, wrong in (
            (codec, b"\x00\x38" + bytes(100)),
            (Hadamard(2), b"\x00\x38" + bytes(1 << 17) + b"1"),
        ):
            with pytest.raises(BadPayload, match="numbers were due"):
                one.decode(wrong, spec)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
