"""A bundle is read strictly, computes the same after a round trip, and is known by one hash."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import fuser
from fuser.bundle.bundle import BadBundle, Bundle, BundleConfig
from fuser.bundle.config import ConfidenceConfig
from fuser.heads.c2c import C2CConfig
from fuser.heads.compact import CompactConfig
from fuser.heads.selection import SelectionConfig
from fuser.heads.translate import TranslateConfig
from fuser.kv.geometry import Geometry, LayerMap
from fuser.prompts.prompt import PromptStyle
from kvwire.errors import Unsupported
from kvwire.identity import ModelRef
from kvwire.segment import SliceKind

CONFIDENCE = {"excerpt": ConfidenceConfig({"mean": 2.0, "abstain": -0.5}, 1.0, least_confidence=0.3)}
SHIPPED = Path(fuser.__file__).parent / "bundles"
STYLE = PromptStyle("<s>", {"question": ("问 ", "\n")}, "A:")
MAP = LayerMap.custom({1: 0, 3: 2}, 4, 3)
CONFIG = BundleConfig(
    sharer=ModelRef("big", "a" * 64),
    receiver=ModelRef("small", "b" * 64),
    sharer_geometry=Geometry(3, 2, 32),
    receiver_geometry=Geometry(4, 2, 32),
    sharer_prompt=STYLE,
    receiver_prompt=STYLE,
    fuse=CompactConfig(MAP, rank=80, inner=48),
    translate=TranslateConfig(code_dim=80, prefix_positions=2, sharer_layers=(0, 2)),
    selection=SelectionConfig(positions=5),
)


FULL = dataclasses.replace(
    CONFIG,
    selection=SelectionConfig(rule="learnt", heads=4),
)


def randomised(config: BundleConfig = CONFIG) -> Bundle:
    torch.manual_seed(4)
    heads: list[Any] = [config.new_fuse(), config.new_translate(), config.new_scorer()]
    for head in heads:
        for parameter in head.parameters() if head is not None else ():
            parameter.data.normal_()
    return Bundle(config, *heads)


def tensors(bundle: Bundle) -> dict[str, Tensor]:
    heads: list[nn.Module | None] = [bundle.fuse, bundle.translate, bundle.scorer]
    return {
        f"{i}.{name}": tensor
        for i, head in enumerate(heads)
        if head is not None
        for name, tensor in head.state_dict().items()
    }


def same(one: Bundle, other: Bundle) -> bool:
    mine, theirs = tensors(one), tensors(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def edit_config(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "config.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def edit_tensors(directory: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    path = directory / "fuser.safetensors"
    stored = load_file(path)
    change(stored)
    save_file(stored, path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    randomised().save(tmp_path)
    return tmp_path


def test_a_bundle_reads_back_equal(saved: Path) -> None:
    loaded = Bundle.load(saved)
    assert loaded.config == CONFIG
    assert same(loaded, randomised())
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "fuser.safetensors"]


def test_heads_come_back_ready_to_run_and_frozen(saved: Path) -> None:
    loaded = Bundle.load(saved)
    for head in (loaded.require_fuse(), loaded.require_translate()):
        assert not head.training
        assert not any(parameter.requires_grad for parameter in head.parameters())
        assert all(parameter.dtype == torch.float32 for parameter in head.parameters())


def test_writing_a_bundle_leaves_heads_that_can_go_on_training(tmp_path: Path) -> None:
    fuse, translate = CONFIG.new_fuse(), CONFIG.new_translate()
    assert fuse is not None and translate is not None
    Bundle(CONFIG, fuse, translate).save(tmp_path, torch.float16)
    assert fuse.training and translate.training
    assert all(parameter.requires_grad for parameter in (*fuse.parameters(), *translate.parameters()))


def test_a_model_directory_keeps_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadBundle, match=r"config\.json that is no bundle's"):
        randomised().save(tmp_path)
    assert (tmp_path / "config.json").read_text() == "{}"


def test_the_hash_names_what_was_written(tmp_path: Path) -> None:
    bundle = randomised()
    assert len(bundle.hash) == 64
    assert int(bundle.hash, 16) >= 0
    assert bundle.save(tmp_path) == bundle.hash == Bundle.load(tmp_path).hash


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_saved_loaded_and_saved_again_it_has_the_same_hash(tmp_path: Path, dtype: torch.dtype) -> None:
    written = randomised().save(tmp_path / "first", dtype)
    loaded = Bundle.load(tmp_path / "first")
    assert loaded.hash == written
    assert loaded.save(tmp_path / "second") == written
    assert Bundle.load(tmp_path / "second").hash == written
    for name in ("config.json", "fuser.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_files_of_two_bundles_are_told_apart(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    randomised().save(one)
    written = Bundle.load(one)
    weights = written.require_translate().squeeze.weight
    weights.data.mul_(2.0)
    written.save(other)
    (one / "fuser.safetensors").write_bytes((other / "fuser.safetensors").read_bytes())
    assert Bundle.load(one).hash == Bundle.load(other).hash  # one config for both
    edit_config(one, lambda raw: raw["receiver_prompt"].update(closing="\nSay: "))
    with pytest.raises(BadBundle, match="not of one bundle; write the bundle again"):
        Bundle.load(one)


def test_a_number_that_was_changed_on_disk_is_noticed(saved: Path) -> None:
    path = saved / "fuser.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadBundle, match="not of one bundle"):
        Bundle.load(saved)


def test_half_precision_halves_the_weights_and_spares_what_is_small(tmp_path: Path) -> None:
    bundle = randomised()
    gates = bundle.require_fuse().get_parameter("gate_logit")
    gates.data.fill_(1e-9)  # open, and 0 in half precision
    assert bundle.save(tmp_path, torch.float16) != bundle.hash
    stored = load_file(tmp_path / "fuser.safetensors")
    assert stored["translate.squeeze.weight"].dtype == stored["fuse.weights.source"].dtype == torch.float16
    assert stored["fuse.gate_logit"].dtype == stored["fuse.source_scale"].dtype == torch.float32
    loaded = Bundle.load(tmp_path)
    assert loaded.require_fuse().open_layers() == bundle.require_fuse().open_layers()
    assert loaded.require_translate().squeeze.weight.dtype == torch.float32


def test_a_weight_that_half_precision_cannot_hold_stays_single(tmp_path: Path) -> None:
    bundle = randomised()
    bundle.require_translate().squeeze.weight.data[0, 0] = 1e6
    bundle.save(tmp_path, torch.float16)
    assert Bundle.load(tmp_path).require_translate().squeeze.weight[0, 0] == 1e6


def test_the_hash_covers_every_weight_and_the_config() -> None:
    hashes = {randomised().hash}
    for change in (
        lambda b: b.require_fuse().gate_logit.data[0, 0].add_(1e-6),
        lambda b: b.require_translate().output_scale[3].mul_(2),
    ):
        bundle = randomised()
        change(bundle)
        hashes.add(bundle.hash)
    hashes.add(randomised(dataclasses.replace(CONFIG, selection=SelectionConfig(positions=6))).hash)
    hashes.add(randomised(dataclasses.replace(CONFIG, sharer=ModelRef("big", "c" * 64))).hash)
    assert len(hashes) == 5


def test_the_hash_does_not_depend_on_how_the_config_is_laid_out(saved: Path) -> None:
    edit_config(saved, lambda raw: raw.update(sharer=raw.pop("sharer")))
    assert Bundle.load(saved).hash == randomised().hash


def test_loading_leaves_the_random_state_alone(saved: Path) -> None:
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    Bundle.load(saved)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_bundle_without_a_head_says_which_slices_it_cannot_make(tmp_path: Path) -> None:
    only_fuse = randomised(dataclasses.replace(CONFIG, translate=None))
    only_translate = randomised(dataclasses.replace(CONFIG, fuse=None))
    for bundle, name in ((only_fuse, "fuse"), (only_translate, "translate")):
        bundle.save(tmp_path / name)
    with pytest.raises(Unsupported) as refused:
        Bundle.load(tmp_path / "fuse").require_translate()
    assert "no translate head" in str(refused.value)
    with pytest.raises(Unsupported) as refused:
        Bundle.load(tmp_path / "translate").require_fuse()
    assert "no fuse head" in str(refused.value)
    assert only_fuse.kinds == {SliceKind.SHARED}
    assert only_translate.kinds == {SliceKind.EXCERPT, SliceKind.DRAFT}
    assert randomised().kinds == set(SliceKind)


def test_a_bundle_with_every_head_reads_back_equal(tmp_path: Path) -> None:
    written = randomised(FULL)
    assert written.kinds == set(SliceKind)
    assert written.save(tmp_path) == written.hash
    loaded = Bundle.load(tmp_path)
    assert (loaded.config, loaded.hash) == (FULL, written.hash)
    assert same(loaded, written) and loaded.parameter_count == written.parameter_count
    for change in ("translate.prefix", "scorer.weight"):
        other = randomised(FULL)
        name, _, key = change.partition(".")
        getattr(other, name).get_parameter(key).data.add_(1e-3)
        assert other.hash != written.hash


def test_excerpts_and_answers_without_a_slice_have_the_learnt_prefix() -> None:
    bundle = randomised()
    for kind in (None, SliceKind.EXCERPT):
        prefix = bundle.prefix_kv(kind)
        assert prefix is not None and prefix.shape == (2, CONFIG.receiver_geometry.width)
    assert bundle.prefix_kv(SliceKind.SHARED) is None
    assert randomised(dataclasses.replace(CONFIG, translate=None)).prefix_kv(None) is None


@pytest.mark.parametrize(
    ("pair", "digest"),
    [
        (
            "qwen2.5-coder-0.5b--smollm2-135m",
            "9e30753955b917bfb7c194851bd0ed5290b9e850f7639ece6165125157b96710",
        ),
        (
            "qwen2.5-coder-1.5b--smollm2-135m",
            "d7da74eb088b9750e10377351819bce28f92a638d1c46c63336d593c796d8154",
        ),
    ],
)
def test_a_shipped_bundle_keeps_its_text_and_its_hash(pair: str, digest: str) -> None:
    """Whoever holds it may be asked by one who has it from another release."""
    directory = SHIPPED / pair
    shipped = Bundle.load(directory)
    assert shipped.hash == digest
    assert shipped.config.to_json() == (directory / "config.json").read_text(encoding="utf-8")


def test_a_learnt_selection_needs_what_its_scorer_reads() -> None:
    with pytest.raises(ValueError, match="needs a translate head"):
        dataclasses.replace(FULL, translate=None)
    with pytest.raises(BadBundle, match="scorer: the config and the head"):
        Bundle(FULL, *(randomised(FULL)._heads()[name] for name in ("fuse", "translate")))  # type: ignore[arg-type]


def test_the_public_architecture_is_a_head_like_any_other(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, fuse=C2CConfig(MAP, hidden_dim=16, intermediate_dim=24))
    bundle = randomised(config)
    assert bundle.save(tmp_path) == Bundle.load(tmp_path).hash
    assert same(Bundle.load(tmp_path), bundle)
    assert Bundle.load(tmp_path).require_fuse().rotated_keys


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.update(colour="red"), "unknown key colour"),
        (lambda raw: raw["fuse"].update(width=3), r"unknown key fuse\.width"),
        (lambda raw: raw["translate"].pop("code_dim"), r"missing key translate\.code_dim"),
        (lambda raw: raw["fuse"].update(rank="40"), r"fuse\.rank: expected int, got str"),
        (lambda raw: raw["fuse"].update(kind="cubic"), "fuse: fits none of CompactConfig, C2CConfig"),
        (lambda raw: raw.update(format=2), "format: expected one of"),
        (lambda raw: raw["sharer_prompt"].update(wraps={"poem": ["", ""]}), "poem"),
        (lambda raw: raw["sharer_geometry"].update(layers=4), "layer map"),
        (lambda raw: raw["fuse"].update(rank=10**6), r"fuse\..* is \(.*\), the config says"),
        (lambda raw: raw["fuse"].update(rank=10**20), r"config\.json: "),
        (lambda raw: raw["selection"].update(first_layer=float("nan")), "NaN"),
        (lambda raw: raw.pop("translate"), r"unknown tensor translate\."),
        (lambda raw: raw["selection"].update(rule="loudest"), r"selection\.rule: expected one of"),
        (lambda raw: raw["selection"].update(rule="learnt", heads=2), r"missing tensor scorer\."),
        (lambda raw: raw["selection"].update(rule="learnt"), r"selection\.heads"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_by_name(
    saved: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_config(saved, change)
    with pytest.raises(BadBundle, match=message):
        Bundle.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stored: stored.pop("fuse.gate_logit"), r"missing tensor fuse\.gate_logit"),
        (lambda stored: stored.update(extra=torch.zeros(1)), "unknown tensor extra"),
        (
            lambda stored: stored.update({"fuse.gate_logit": torch.zeros(3, 2)}),
            r"fuse\.gate_logit is \(3, 2\), the config says \(2, 2\)",
        ),
        (
            lambda stored: stored.update({"fuse.gate_logit": torch.zeros(2, 2, dtype=torch.float64)}),
            r"fuse\.gate_logit is torch\.float64",
        ),
        (lambda stored: stored["translate.output_mean"].fill_(float("inf")), "output_mean has numbers"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    saved: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    edit_tensors(saved, change)
    with pytest.raises(BadBundle, match=message):
        Bundle.load(saved)


def test_damaged_files_are_refused(saved: Path) -> None:
    file, config = saved / "fuser.safetensors", saved / "config.json"
    whole = file.read_bytes()
    for damaged in (b"", whole[:-1], whole + b"\0", b"\xff" * 8 + whole[8:], whole[:50]):
        file.write_bytes(damaged)
        with pytest.raises(BadBundle, match=r"fuser\.safetensors"):
            Bundle.load(saved)
    file.write_bytes(whole)
    for text in (b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b" " * (1 << 21)):
        config.write_bytes(text)
        with pytest.raises(BadBundle, match=r"config\.json"):
            Bundle.load(saved)


@pytest.mark.parametrize("name", ["config.json", "fuser.safetensors", "answerable.safetensors"])
@pytest.mark.timeout(10)
def test_a_pipe_in_place_of_a_file_of_a_bundle_is_refused_and_not_waited_for(
    tmp_path: Path, name: str
) -> None:
    shutil.copytree(next(SHIPPED.glob("*/answerable.safetensors")).parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(BadBundle, match=f"not a regular file.*{name}"):
        Bundle.load(tmp_path)


def test_a_directory_without_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match=r"config\.json"):
        Bundle.load(tmp_path / "nowhere")


def test_numbers_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    bundle = randomised()
    bundle.require_translate().widen.weight.data[1, 1] = float("nan")
    with pytest.raises(BadBundle, match=r"translate\.widen\.weight has numbers"):
        bundle.save(tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_a_dtype_that_is_not_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match="float64"):
        randomised().save(tmp_path, torch.float64)


def test_a_config_and_its_heads_must_agree() -> None:
    with pytest.raises(BadBundle, match="fuse: the config and the head"):
        Bundle(CONFIG, None, CONFIG.new_translate())


def test_two_bundles_that_differ_in_what_the_edge_reads_alone_have_one_hash(tmp_path: Path) -> None:
    plain = randomised()
    sure = Bundle(dataclasses.replace(CONFIG, abstain="not stated"), plain.fuse, plain.translate)
    changed = dataclasses.replace(sure.config, confidence=CONFIDENCE, usual="draft")
    other = Bundle(changed, plain.fuse, plain.translate)
    assert other.hash == sure.hash != plain.hash
    assert other.save(tmp_path / "b") == sure.hash
    edit_config(tmp_path / "b", lambda raw: raw["confidence"]["excerpt"].update(least_confidence=0.5))
    read = Bundle.load(tmp_path / "b")
    assert read.hash == sure.hash and read.config.confidence["excerpt"].least_confidence == 0.5
    assert read.config.confidence["excerpt"].of({"mean": -0.5, "abstain": -2.0}) == pytest.approx(
        0.7311, abs=1e-4
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"abstain": ""}, "confidence needs abstain"),
        ({"confidence": {"shared": CONFIDENCE["excerpt"]}}, "not of 'shared'"),
        ({"confidence": {"draft": {"weights": {"luck": 1.0}}}}, "no signal 'luck'"),
        ({"confidence": {"draft": {"weights": {"mean": float("inf")}}}}, "finite"),
        ({"confidence": {"draft": {"weights": {}, "least_confidence": 1.5}}}, "0 to 1"),
    ],
)
def test_numbers_that_say_no_confidence_are_refused(change: dict[str, Any], said: str) -> None:
    def made() -> BundleConfig:
        given = dict(change)
        for kind, one in given.get("confidence", {}).items():
            if isinstance(one, dict):
                given["confidence"] = {kind: ConfidenceConfig(bias=0.0, **one)}
        whole: dict[str, Any] = {"abstain": "not stated", "confidence": CONFIDENCE} | given
        return dataclasses.replace(CONFIG, **whole)

    with pytest.raises(ValueError, match=said):
        made()
