"""The public fuse head: outputs equal the public code, closed gates are exact, imports are strict."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fuser.bundle.tensors import BadBundle
from fuser.heads.c2c import C2CConfig, C2CFuse
from fuser.kv.geometry import Geometry, LayerMap
from fuser.lab.c2c.checkpoint import alignment_of, import_public
from kvwire.segment import SegmentKind

GOLDEN = Path(__file__).parent / "golden" / "c2c_layer.safetensors"
SHARER, RECEIVER = Geometry(3, 1, 12), Geometry(5, 2, 32)
ARGUMENTS = {
    "source_dim": 12,
    "target_dim": 32,
    "source_num_heads": 1,
    "target_num_heads": 2,
    "dropout": 0.1,
    "initial_temperature": 1.0,
    "final_temperature": 0.001,
    "anneal_steps": 20,
    "dtype": {"__type__": "torch.dtype", "value": "float32"},
    "hidden_dim": 32,
    "intermediate_dim": 48,
    "num_layers": 3,
}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    """Weights of a layer with both gates open, and what the public code (d03cc7b) computed with them."""
    return load_file(GOLDEN)


@pytest.fixture
def checkpoint(tmp_path: Path, golden: dict[str, Tensor]) -> Path:
    """A checkpoint in the public format: five layers, all with the golden layer's weights."""
    state = {name.removeprefix("state."): t for name, t in golden.items() if name.startswith("state.")}
    for index in range(5):
        torch.save(state, tmp_path / f"projector_{index}.pt")
        write(tmp_path / f"projector_{index}.json", {"class": "C2CProjector", "init_args": ARGUMENTS})
    pairs = {str(layer): [[max(layer - 2, 0), layer]] for layer in range(5)}
    write(tmp_path / "projector_config.json", {"0": {"1": pairs}})
    return tmp_path


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def described(**change: Any) -> dict[str, Any]:
    return {"class": "C2CProjector", "init_args": {**ARGUMENTS, **change}}


def inputs(golden: dict[str, Tensor]) -> list[Tensor]:
    return [golden[f"{side}.{half}"] for side in ("sharer", "receiver") for half in ("key", "value")]


def small_head() -> C2CFuse:
    torch.manual_seed(1)
    config = C2CConfig(LayerMap.terminal(5, 3), hidden_dim=32, intermediate_dim=48)
    return C2CFuse(config, SHARER, RECEIVER).eval()


def open_gates(head: C2CFuse, logit: float = 1.0) -> None:
    for name, parameter in head.named_parameters():
        if name.endswith("gate_logit"):
            parameter.data.fill_(logit)


def test_outputs_equal_the_public_code(checkpoint: Path, golden: dict[str, Tensor]) -> None:
    keys, values = import_public(checkpoint, SHARER, RECEIVER).fuse_layer(3, *inputs(golden))
    torch.testing.assert_close(keys, golden["fused.key"], rtol=0, atol=1e-5)
    torch.testing.assert_close(values, golden["fused.value"], rtol=0, atol=1e-5)
    assert (golden["fused.key"] - golden["receiver.key"]).abs().max() > 0.1


def test_an_imported_checkpoint_keeps_its_map_its_shape_and_rotated_keys(checkpoint: Path) -> None:
    head = import_public(checkpoint, SHARER, RECEIVER)
    assert head.config == C2CConfig(LayerMap.terminal(5, 3), 32, 48)
    assert head.rotated_keys
    assert not head.training
    assert head.open_layers() == [(True, True)] * 5
    assert head.needed() == [(kind, n) for n in range(3) for kind in (SegmentKind.KEY, SegmentKind.VALUE)]


def test_an_untrained_head_is_the_exact_identity_and_needs_nothing(golden: dict[str, Tensor]) -> None:
    head = small_head()
    keys, values = head.fuse_layer(2, *inputs(golden))
    assert keys is golden["receiver.key"]
    assert values is golden["receiver.value"]
    assert head.needed() == []


def test_a_gate_closes_one_half_alone(golden: dict[str, Tensor]) -> None:
    head = small_head()
    head.get_parameter("layers.2.value_gate_logit").data.fill_(0.01)
    keys, values = head.fuse_layer(2, *inputs(golden))
    assert keys is golden["receiver.key"]
    assert not torch.equal(values, golden["receiver.value"])
    assert head.needed() == [(SegmentKind.VALUE, 0)]


def test_a_half_that_did_not_arrive_stays_the_receivers(golden: dict[str, Tensor]) -> None:
    head = small_head()
    open_gates(head)
    sharer_keys, _, keys, values = inputs(golden)
    fused_keys, fused_values = head.fuse_layer(2, sharer_keys, None, keys, values)
    assert not torch.equal(fused_keys, keys)
    assert fused_values is values


def test_a_layer_that_nothing_feeds_passes_through(golden: dict[str, Tensor]) -> None:
    config = C2CConfig(LayerMap.custom({4: 2}, 5, 3), hidden_dim=32, intermediate_dim=48)
    head = C2CFuse(config, SHARER, RECEIVER).eval()
    open_gates(head)
    assert head.open_layers() == [(False, False)] * 4 + [(True, True)]
    assert head.fuse_layer(0, *inputs(golden))[0] is golden["receiver.key"]


def caches(batch: int = 2, positions: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """K and V of the Sharer as a map feeds them, K and V of the Receiver; Receiver layers outermost."""
    generator = torch.Generator().manual_seed(3)
    sharer, receiver = (5, batch, 1, positions, 12), (5, batch, 2, positions, 32)
    keys, values, mine, my_values = (
        torch.randn(shape, generator=generator) for shape in (sharer, sharer, receiver, receiver)
    )
    return keys, values, mine, my_values


def gapped_head() -> C2CFuse:
    """Nothing feeds layer 0; layer 2 is closed and layer 3 open for V alone."""
    torch.manual_seed(1)
    config = C2CConfig(LayerMap.custom({1: 0, 2: 0, 3: 1, 4: 2}, 5, 3), 32, 48, num_layers=4)
    head = C2CFuse(config, SHARER, RECEIVER).eval()
    open_gates(head)
    for gate in ("2.key", "2.value", "3.key"):
        head.get_parameter(f"layers.{gate}_gate_logit").data.fill_(-1.0)
    return head


def test_all_layers_at_once_equal_one_layer_at_a_time() -> None:
    head, whole = gapped_head(), caches()
    keys, values = head.fuse(range(5), *whole)
    for layer in range(5):
        one_keys, one_values = head.fuse_layer(layer, *(half[layer] for half in whole))
        torch.testing.assert_close(keys[layer], one_keys, rtol=0, atol=1e-5)
        torch.testing.assert_close(values[layer], one_values, rtol=0, atol=1e-5)
    assert torch.equal(keys[[0, 2, 3]], whole[2][[0, 2, 3]])
    assert not torch.equal(keys[1], whole[2][1])
    assert not torch.equal(values[3], whole[3][3])


def test_the_published_pair_has_the_published_size() -> None:
    with torch.device("meta"):
        head = C2CFuse(C2CConfig(LayerMap.terminal(28, 24)), Geometry(24, 2, 64), Geometry(28, 8, 128))
    assert head.parameter_count == 477_848_056


def test_shapes_of_another_pair_are_refused(golden: dict[str, Tensor]) -> None:
    head = small_head()
    open_gates(head)
    sharer_keys, sharer_values, keys, values = inputs(golden)
    with pytest.raises(ValueError, match="sharer is"):
        head.fuse_layer(2, sharer_keys[:, :, :-1], sharer_values, keys, values)
    with pytest.raises(ValueError, match="receiver is"):
        head.fuse_layer(2, sharer_keys, sharer_values, keys[:, :1], values)
    with pytest.raises(ValueError, match="the layer map is for a Sharer of 3 layers"):
        C2CFuse(head.config, Geometry(4, 1, 12), RECEIVER)


def test_a_checkpoint_for_other_models_is_refused(checkpoint: Path) -> None:
    with pytest.raises(BadBundle, match="source_dim is 12, the models given have 16"):
        import_public(checkpoint, Geometry(3, 1, 16), RECEIVER)
    with pytest.raises(BadBundle, match="the Receiver has 4 layers"):
        import_public(checkpoint, SHARER, Geometry(4, 2, 32))


def test_wrong_tensors_are_refused_by_name(checkpoint: Path) -> None:
    state = torch.load(checkpoint / "projector_2.pt", weights_only=True)
    torch.save({**state, "surplus": torch.zeros(1)}, checkpoint / "projector_2.pt")
    with pytest.raises(BadBundle, match=r"projector_2\.pt: unknown tensor surplus"):
        import_public(checkpoint, SHARER, RECEIVER)
    torch.save({k: v for k, v in state.items() if k != "value_in.bias"}, checkpoint / "projector_2.pt")
    with pytest.raises(BadBundle, match=r"projector_2\.pt: missing tensor value_in\.bias"):
        import_public(checkpoint, SHARER, RECEIVER)
    torch.save({**state, "value_in.bias": torch.zeros(31)}, checkpoint / "projector_2.pt")
    with pytest.raises(BadBundle, match=r"projector_2\.pt: value_in\.bias is \(31,\), expected \(32,\)"):
        import_public(checkpoint, SHARER, RECEIVER)
    torch.save({**state, "key_in.bias": torch.full((32,), float("nan"))}, checkpoint / "projector_2.pt")
    with pytest.raises(BadBundle, match=r"key_in\.bias has numbers that are not finite"):
        import_public(checkpoint, SHARER, RECEIVER)
    torch.save({**state, "key_in.bias": torch.zeros(32, dtype=torch.int64)}, checkpoint / "projector_2.pt")
    with pytest.raises(BadBundle, match=r"key_in\.bias is torch\.int64"):
        import_public(checkpoint, SHARER, RECEIVER)


@pytest.mark.parametrize(
    "damaged",
    [b"", b"not a checkpoint", b"PK\x03\x04" + bytes(40), b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R."],
)
def test_a_damaged_pickle_is_named_whatever_its_reader_stumbles_over(
    checkpoint: Path, damaged: bytes
) -> None:
    (checkpoint / "projector_1.pt").write_bytes(damaged)
    with pytest.raises(BadBundle, match=r"projector_1\.pt: damaged, or not a table of tensors \(\w+\)"):
        import_public(checkpoint, SHARER, RECEIVER)


def test_a_pickle_that_would_run_code_is_refused(checkpoint: Path) -> None:
    torch.save({"key_in.bias": Path("/")}, checkpoint / "projector_0.pt")
    with pytest.raises(BadBundle, match=r"projector_0\.pt"):
        import_public(checkpoint, SHARER, RECEIVER)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("projector_config.json", {"0": {"1": {}, "2": {}}}, "one Sharer"),
        ("projector_config.json", {"0": {"1": {}}}, "no Receiver layer is mapped"),
        ("projector_config.json", [], "a table is expected"),
        ("projector_1.json", {"class": "AllInOneProjector", "init_args": {}}, "AllInOneProjector"),
        ("projector_config.json", {"0": {"1": {"x": [[0, 0]]}}}, "'x' is not a Receiver layer"),
        ("projector_config.json", {"0": {"1": {"0": [[0, True]]}}}, "layer 0: expected pairs"),
        ("projector_1.json", {"class": "C2CProjector"}, "init_args: a table is expected"),
        ("projector_1.json", {"class": "C2CProjector", "init_args": {}}, "missing key init_args.source_dim"),
        (
            "projector_1.json",
            described(hidden_dim=64),
            r"projector_1\.json differs from the others in hidden_dim",
        ),
        ("projector_1.json", described(colour=1), r"projector_1\.json: unknown key init_args\.colour"),
        ("projector_1.json", {**described(), "version": 2}, r"projector_1\.json: unknown key version"),
        ("projector_1.json", described(hidden_dim=True), r"init_args\.hidden_dim: expected int, got bool"),
    ],
)
def test_other_descriptions_are_refused(checkpoint: Path, name: str, value: Any, message: str) -> None:
    write(checkpoint / name, value)
    with pytest.raises(BadBundle, match=message):
        import_public(checkpoint, SHARER, RECEIVER)


def test_a_missing_file_is_named(checkpoint: Path) -> None:
    (checkpoint / "projector_3.pt").unlink()
    with pytest.raises(BadBundle, match=r"projector_3\.pt"):
        import_public(checkpoint, SHARER, RECEIVER)


def test_a_size_that_no_machine_holds_is_refused_before_memory_is_taken(checkpoint: Path) -> None:
    for index in range(5):
        write(checkpoint / f"projector_{index}.json", described(hidden_dim=10**7))
    with pytest.raises(BadBundle, match=r"projector_0\.pt: .* expected \(10000000,"):
        import_public(checkpoint, SHARER, RECEIVER)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model": {"is_do_alignment": True, "alignment_strategy": "longest"}}, "longest"),
        ({"is_do_alignment": True}, "first"),
        ({"model": {"is_do_alignment": False, "alignment_strategy": "longest"}}, "same"),
        ({"training": {}}, "same"),
    ],
)
def test_the_alignment_is_what_the_training_config_says(
    tmp_path: Path, config: dict[str, Any], expected: str
) -> None:
    write(tmp_path / "config.json", config)
    assert alignment_of(tmp_path) == alignment_of(tmp_path / "final") == expected
    write(tmp_path / "config.json", {"is_do_alignment": True, "alignment_strategy": "prefix"})
    with pytest.raises(BadBundle, match=r"config\.json: alignment_strategy 'prefix'"):
        alignment_of(tmp_path)
