"""Calibration of the tiny pair's bundle, and what a bundle with bases is."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.progress import Progress

from fuser.bundle import tensors as bundle_tensors
from fuser.bundle.bundle import BadBundle, Bundle
from fuser.lab.calibrate import calibrated
from fuser.lab.scatter import Scatter, allocate_bits
from fuser.lab.train.task import Setting
from fuser.slice_specs import slice_specs
from kvwire.codec import Basis, CodecRegistry
from kvwire.plan import Plan
from kvwire.segment import SegmentKind, SegmentSpec, SliceKind
from tests.fuser.lab.train.conftest import HEADS
from tests.fuser.lab.train.tiny_setting import PROMPTS, tiny_setting

RATES = (6.0, 3.0, 1.0)


@pytest.fixture(scope="module")
def setting(tiny_sharer: Path, tiny_receiver: Path, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    from fuser.lab.data.load import load

    items = (*load("records:train", "document", 12, 1), *PROMPTS * 4)
    return tiny_setting(tiny_sharer, tiny_receiver, tmp_path_factory.mktemp("work"), items, HEADS)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain(setting: Setting) -> Bundle:
    heads = {name: head.eval().requires_grad_(False) for name, head in setting.heads.items()}
    with torch.no_grad():
        heads["fuse"].get_parameter("gate_logit").fill_(1.0)
        heads["fuse"].get_parameter("gate_logit")[0, 0] = -1.0
    return Bundle(setting.bundle, **heads)  # type: ignore[arg-type]


def calibrate(setting: Setting, bundle: Bundle, seed: int = 1, positions: int = 400) -> Bundle:
    train = setting.train
    with Progress(disable=True) as progress:
        return calibrated(
            bundle,
            setting.cache,
            train.documents,
            train.prompts,
            progress,
            positions=positions,
            rates=RATES,
            code_dims=(5, 20),
            seed=seed,
        )


@pytest.fixture(scope="module")
def bundle(setting: Setting, plain: Bundle) -> Bundle:
    return calibrate(setting, plain)


def specs_of(bundle: Bundle) -> Iterator[SegmentSpec]:
    """Of everything that may be asked for."""
    for bottleneck in (False, True):
        yield from slice_specs(
            bundle, SliceKind.SHARED, Plan(codec="raw", bottleneck=bottleneck), 9, "bfloat16"
        )
    yield from slice_specs(bundle, SliceKind.EXCERPT, Plan(codec="raw"), 9, "float32")
    yield from slice_specs(bundle, SliceKind.EXCERPT, Plan(codec="raw", code_dim=5), 9, "float32")


def test_every_segment_that_may_be_asked_for_has_a_basis_at_every_rate(bundle: Bundle) -> None:
    bases = bundle.config.codec_bases
    assert bases is not None and bases.code_widths == (5, 20, 24)
    registry = CodecRegistry(bundle.codecs())
    assert registry.names()[-3:] == ("transform-6", "transform-3", "transform-1")
    specs = list(specs_of(bundle))
    assert {spec.kind for spec in specs} >= {SegmentKind.KEY, SegmentKind.KEY_CODE, SegmentKind.CODE}
    for codec in bundle.codecs():
        for spec in specs:
            tensor = torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype))
            payload = codec.encode(tensor, spec)
            assert len(payload) <= codec.max_bytes(spec)
            assert codec.decode(payload, spec).shape == spec.shape


def test_keys_and_values_use_the_rate_on_average(bundle: Bundle) -> None:
    assert bundle.codec_bases is not None
    for rate, codec in zip(RATES, bundle.codecs(), strict=True):
        for bottleneck in (False, True):
            plan = Plan(codec=codec.name, bottleneck=bottleneck)
            specs = slice_specs(bundle, SliceKind.SHARED, plan, 100, "float32")
            bits = sum(8 * (codec.max_bytes(spec) - 2) for spec in specs) / sum(
                spec.elements for spec in specs
            )
            assert bits == pytest.approx(rate, rel=0.02)


def test_keys_and_values_are_told_better_than_by_as_many_bits_without_calibration(
    setting: Setting, bundle: Bundle
) -> None:
    from fuser.heads.translate import split_kv

    prompt = max(setting.train.prompts, key=lambda prompt: prompt.count)
    kv = split_kv(setting.cache.raw(prompt, torch.arange(prompt.count)), setting.bundle.sharer_geometry)
    for kind, half in zip((SegmentKind.KEY, SegmentKind.VALUE), kv, strict=True):
        tensor = half[1].contiguous()
        spec = SegmentSpec(0, kind, 1, tuple(tensor.shape), "float32")
        errors, sizes = [], []
        for codec in (bundle.codecs()[1], CodecRegistry().get("hadamard-3")):
            payload = codec.encode(tensor, spec)
            errors.append(float((codec.decode(payload, spec) - tensor).square().sum()))
            sizes.append(len(payload))
        assert sizes[0] < 1.1 * sizes[1]
        assert errors[0] < 0.8 * errors[1]


def test_a_bundle_with_bases_is_stored_loaded_and_hashed_with_them(
    setting: Setting, plain: Bundle, bundle: Bundle, tmp_path: Path
) -> None:
    saved = bundle.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    assert loaded.hash == saved == bundle.hash != plain.hash
    hashes = [codec.parameters_hash for codec in bundle.codecs()]
    assert [codec.parameters_hash for codec in loaded.codecs()] == hashes
    assert loaded.parameter_count == plain.parameter_count
    assert plain.codecs() == () and plain.config.codec_bases is None
    other = calibrate(setting, plain, seed=2, positions=100)
    assert other.codecs()[1].parameters_hash != hashes[1]


def test_a_bundle_in_half_precision_stays_so_when_it_is_calibrated(
    setting: Setting, plain: Bundle, tmp_path: Path
) -> None:
    wide = replace(plain.config, translate=replace(plain.config.translate, prefix_positions=200))  # type: ignore[type-var]
    heads = Bundle(wide, plain.fuse, wide.new_translate(), plain.scorer)
    heads.save(tmp_path / "plain", torch.float16)
    loaded = Bundle.load(tmp_path / "plain")
    calibrate(setting, loaded).save(tmp_path / "calibrated")
    from safetensors.torch import load_file

    before, after = (load_file(tmp_path / name / "fuser.safetensors") for name in ("plain", "calibrated"))
    assert torch.float16 in {tensor.dtype for tensor in before.values()}
    assert {name: after[name].dtype for name in before} == {name: t.dtype for name, t in before.items()}


@pytest.mark.parametrize("name", ["spread", "mean", "synthesis"])
def test_bases_that_no_calibration_gives_are_not_loaded(bundle: Bundle, tmp_path: Path, name: str) -> None:
    from safetensors.torch import load_file

    bundle.save(tmp_path)
    tensors = load_file(tmp_path / "fuser.safetensors")
    key = f"codec_bases.bases.0.{name}"
    tensors[key] = tensors[key].flip(0) - 1 if name == "spread" else tensors[key] * 0 + 60_000
    if name == "mean":
        tensors["codec_bases.bits"] = tensors["codec_bases.bits"] * 0
    whole = bundle_tensors.digest(bundle.config.hashed, tensors)
    bundle_tensors.write(tmp_path / "fuser.safetensors", tensors, whole)
    with pytest.raises(BadBundle, match="codec_bases"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"rates": []},
        {"rates": [0.0]},
        {"rates": [2.0, 2.0]},
        {"layers": {"code": [1]}},
        {"layers": {"key": [2, 1]}},
        {"layers": {"key_code": [99]}},
        {"code_widths": [0]},
    ],
)
def test_a_config_of_bases_without_meaning_is_refused_by_name(
    bundle: Bundle, tmp_path: Path, change: dict[str, object]
) -> None:
    bundle.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["codec_bases"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadBundle, match=r"codec_bases|rates"):
        Bundle.load(tmp_path)


def test_codes_of_drafts_that_are_cached_count_beside_those_of_excerpts(
    tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, plain: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fuser.lab.data.load import load

    drafted = tiny_setting(
        tiny_sharer,
        tiny_receiver,
        tmp_path,
        load("records:train", "document", 12, 1),  # type: ignore[arg-type]
        HEADS | {"fuse": None, "drafts": True},
    )
    read: list[int] = []
    real = Scatter.add

    def add(scatter: Scatter, rows: torch.Tensor) -> None:
        read.append(len(rows))
        real(scatter, rows)

    monkeypatch.setattr(Scatter, "add", add)
    calibrate(drafted, Bundle(replace(plain.config, fuse=None), translate=plain.translate), positions=10**6)
    excerpt = drafted.config.selection.positions
    written = [len(q.draft) for d in drafted.train.documents for q in d.questions]
    assert sorted(read) == sorted(excerpt + count for count in written) and sum(written)


def test_without_prompts_the_bases_of_shared_slices_stay(setting: Setting, bundle: Bundle) -> None:
    def again(rates: Sequence[float]) -> Bundle:
        with Progress(disable=True) as progress:
            documents = setting.train.documents[:6]
            return calibrated(
                bundle, setting.cache, documents, (), progress, positions=100, rates=rates, code_dims=(5, 20)
            )

    assert bundle.codec_bases is not None
    before, found = bundle.codec_bases, again(RATES).codec_bases
    assert found is not None and found.places == before.places
    for i, place in enumerate(before.places):
        same = torch.equal(before.read()[place].synthesis, found.read()[place].synthesis)
        assert same is (place[0] is not SegmentKind.CODE)
        assert torch.equal(before.bits[:, i], found.bits[:, i])
    with pytest.raises(ValueError, match="those of shared slices stay"):
        again((4.0,))


def test_too_few_positions_are_no_calibration(setting: Setting, plain: Bundle) -> None:
    with pytest.raises(ValueError, match="too few"):
        calibrate(setting, plain, positions=10)


def test_codes_spend_their_bits_where_the_receiver_needs_them() -> None:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(4000, 16, generator=generator)
    widen = torch.randn(40, 16, generator=generator) * torch.tensor([10.0, 0.1]).repeat(8)
    scatter = Scatter.empty(16)
    scatter.add(rows)
    spec = SegmentSpec(0, SegmentKind.CODE, -1, (200, 16), "float32")

    def cost(basis: Basis) -> float:
        from kvwire.codec import Transform

        codec = Transform(1, {(SegmentKind.CODE, -1, 16): basis}, {(SegmentKind.CODE, -1, 16): 1.0})
        fresh = torch.randn(200, 16, generator=torch.Generator().manual_seed(4))
        wrong = codec.decode(codec.encode(fresh, spec), spec) - fresh
        return float((wrong @ widen.T).square().sum())

    assert cost(scatter.basis(16, widen.T @ widen)) < 0.6 * cost(scatter.basis(16))


@pytest.fixture(scope="module")
def two_each(setting: Setting) -> Bundle:
    """Of excerpts alone: a third of a code is for the first of its two positions, a third for the second."""
    assert setting.bundle.translate is not None
    shape = replace(setting.bundle.translate, receiver_positions=2)
    config = replace(setting.bundle, fuse=None, translate=shape)
    torch.manual_seed(6)
    head = config.new_translate()
    assert head is not None
    head.eval().requires_grad_(False)
    first, second = head.get_parameter("widen.weight").chunk(2)
    first[:, 8:] = 0
    second[:, :8] = second[:, 16:] = 0
    return Bundle(config, translate=head)


def test_a_bundle_of_two_positions_a_code_is_stored_and_loaded_with_its_bases(
    setting: Setting, two_each: Bundle, tmp_path: Path
) -> None:
    found = calibrate(setting, two_each)
    saved = found.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    assert loaded.hash == saved == found.hash != two_each.hash
    assert loaded.require_translate().receiver_positions == 2
    assert loaded.config.codec_bases is not None and loaded.config.codec_bases.code_widths == (5, 20, 24)
    hashes = [codec.parameters_hash for codec in found.codecs()]
    assert [codec.parameters_hash for codec in loaded.codecs()] == hashes


def test_codes_spend_their_bits_alike_on_what_either_of_two_positions_needs(
    setting: Setting, two_each: Bundle
) -> None:
    found = calibrate(setting, two_each)
    document = max(setting.train.documents, key=lambda document: document.count)
    features = setting.cache.raw(document, torch.arange(document.count))
    codes = found.require_translate().encode(features)
    (spec,) = slice_specs(found, SliceKind.EXCERPT, Plan(codec="raw"), len(codes), "float32")
    codec = found.codecs()[1]
    wrong = codec.decode(codec.encode(codes, spec), spec) - codes

    def thirds(numbers: torch.Tensor) -> torch.Tensor:
        return numbers.square().view(-1, 3, 8).sum((0, 2))

    first, second, neither = (thirds(wrong) / thirds(codes - codes.mean(0))).tolist()
    assert max(first, second) < 0.02 and neither > 0.5
    assert 0.5 < first / second < 2


def test_bits_are_shared_out_so_that_every_segment_has_the_same_relative_error() -> None:
    def basis(spread: torch.Tensor) -> Basis:
        return Basis(torch.zeros(32), torch.eye(32).half(), spread)

    flat, steep = basis(torch.ones(32)), basis(2.0 ** -torch.arange(32).float())
    loud = basis(1000 * flat.spread)
    bits = allocate_bits([flat, steep, loud], 2.0)
    assert sum(bits) / 3 == pytest.approx(2.0, rel=0.02)
    assert bits[0] == bits[2] > 2 * bits[1]
