"""`kvwire bundle import`: a public checkpoint becomes a bundle, checked against the public code's outputs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from fuser.bundle.bundle import Bundle
from fuser.heads.c2c import C2CConfig
from ops.cli import app
from tests.public_checkpoint import save_golden, save_public_checkpoint

GOLDEN = Path(__file__).parent.parent / "fuser" / "lab" / "c2c" / "golden"
PAIRS = {0: [[0, 0]], 2: [[5, 1], [0, 0]], 3: [[5, 0]]}  # nothing feeds layer 1; projector 0 serves two


def run(checkpoint: Path, output: Path, *more: str, models: Path | None = None) -> Result:
    receiver, sharer = (str((models or GOLDEN) / side) for side in ("receiver", "sharer"))
    command = ["bundle", "import", str(checkpoint), str(output), "--receiver", receiver, "--sharer", sharer]
    return CliRunner().invoke(app, [*command, *more])


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, tiny_sharer: Path, tiny_receiver: Path) -> Path:
    """Another pair, map, depth and alignment, laid out as published: config.json beside `final`."""
    folder = tmp_path_factory.mktemp("public")
    (folder / "receiver").symlink_to(tiny_sharer)  # turned round: the Sharer has the smaller vocabulary
    (folder / "sharer").symlink_to(tiny_receiver)
    final = save_public_checkpoint(
        folder / "final", PAIRS, {"sharer": (1, 16), "receiver": (2, 16)}, blocks=2
    )
    config = {"model": {"is_do_alignment": True, "alignment_strategy": "longest"}}
    (folder / "config.json").write_text(json.dumps(config))
    save_golden(folder / "golden.safetensors", final, tiny_sharer, tiny_receiver, new_tokens=8)
    return folder


def test_a_bundle_equals_the_public_code_layer_by_layer_and_token_by_token(tmp_path: Path) -> None:
    done = run(GOLDEN / "final", tmp_path, "--check", str(GOLDEN / "golden.safetensors"), "--json", "-")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert [one["layer"] for one in report["layers"]] == [0, 1, 2, 3, 4]
    assert report["max_abs_error"] == max(one["max_abs_error"] for one in report["layers"]) < 1e-5
    assert report["tokens_equal"] is True
    assert report["tokens_like"] == "transformers > 4.52"
    assert report["bundle"] == Bundle.load(tmp_path).hash
    assert report["output"] == str(tmp_path)


@pytest.mark.parametrize("at", [".", "final"])
def test_another_map_depth_and_alignment_equal_the_method_written_down_again(
    other: Path, tmp_path: Path, at: str
) -> None:
    check = ("--check", str(other / "golden.safetensors"), "--json", str(tmp_path / "report.json"))
    done = run(other / at, tmp_path / "bundle", *check, models=other)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert [one["layer"] for one in report["layers"]] == [0, 2, 3]
    assert report["max_abs_error"] < 1e-5
    assert report["tokens_equal"] is True
    assert report["alignment"] == "longest"
    assert "the service aligns by characters instead" in done.stderr
    bundle = Bundle.load(tmp_path / "bundle")
    assert isinstance(bundle.config.fuse, C2CConfig)
    assert bundle.config.fuse.layer_map.mapped == ((0, 0), (2, 5), (3, 5))
    assert bundle.config.fuse.alignment == "longest"
    assert bundle.config.fuse.num_layers == 4
    assert bundle.config.receiver_prompt.opening == "<|im_start|>user\n"
    assert bundle.config.receiver_prompt.closing == "<|im_end|>\n<|im_start|>assistant\n"


def test_another_alignment_gives_other_tokens_to_the_sharer_and_fails_the_check(
    other: Path, tmp_path: Path
) -> None:
    check = ("--alignment", "first", "--check", str(other / "golden.safetensors"))
    done = run(other, tmp_path, *check, models=other)
    assert done.exit_code == 1
    assert "tokens_equal   False" in done.output
    assert "max_abs_error" in done.output


@pytest.mark.parametrize(
    ("name", "by", "wrong"),
    [("fused.3.value", 1e-3, [3]), ("generated_fused", 1, []), ("sharer.0.key", 0.1, [0])],
)
def test_a_file_that_disagrees_fails_the_check(
    tmp_path: Path, name: str, by: float, wrong: list[int]
) -> None:
    golden = load_file(GOLDEN / "golden.safetensors")
    golden[name][..., -1] += int(by) if name == "generated_fused" else by
    save_file(golden, tmp_path / "golden.safetensors")
    check = ("--check", str(tmp_path / "golden.safetensors"), "--json", "-")
    done = run(GOLDEN / "final", tmp_path / "bundle", *check)
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert [one["layer"] for one in report["layers"] if one["max_abs_error"] > 1e-5] == wrong
    assert report["tokens_equal"] is (name != "generated_fused")


def test_a_layer_that_the_checkpoint_lost_from_its_map_fails_the_check(tmp_path: Path) -> None:
    final = shutil.copytree(GOLDEN / "final", tmp_path / "final")
    pairs = json.loads((final / "projector_config.json").read_text())
    del pairs["0"]["1"]["3"]
    (final / "projector_config.json").write_text(json.dumps(pairs))
    done = run(final, tmp_path / "bundle", "--check", str(GOLDEN / "golden.safetensors"), "--json", "-")
    assert done.exit_code == 1
    layers = json.loads(done.stdout)["layers"]
    assert [one["layer"] for one in layers if one["max_abs_error"] > 1e-5] == [3]


def test_tokens_of_another_alignment_need_the_tokenizers(tmp_path: Path) -> None:
    check = ("--alignment", "first", "--check", str(GOLDEN / "golden.safetensors"))
    done = run(GOLDEN / "final", tmp_path, *check)
    assert done.exit_code == 1
    assert "receiver has no tokenizer.json" in str(done.exception)


def test_the_tolerance_can_be_set(tmp_path: Path) -> None:
    golden = load_file(GOLDEN / "golden.safetensors")
    golden["fused.0.key"] += 1e-3
    save_file(golden, tmp_path / "golden.safetensors")
    for tolerance, status in (("1e-2", 0), ("1e-4", 1)):
        check = ("--check", str(tmp_path / "golden.safetensors"), "--tolerance", tolerance)
        assert run(GOLDEN / "final", tmp_path / tolerance, *check).exit_code == status


def test_a_file_without_tokens_is_checked_without_them(tmp_path: Path) -> None:
    golden = load_file(GOLDEN / "golden.safetensors")
    save_file({n: t for n, t in golden.items() if "." in n}, tmp_path / "golden.safetensors")
    check = ("--check", str(tmp_path / "golden.safetensors"), "--json", "-")
    report = json.loads(run(GOLDEN / "final", tmp_path / "bundle", *check).stdout)
    assert "tokens_equal" not in report
    assert report["max_abs_error"] < 1e-5


def broken(name: str) -> Any:
    golden = load_file(GOLDEN / "golden.safetensors")
    if name == "missing tensor fused.2.key":
        del golden["fused.2.key"]
    elif name == "layer 0: sharer is":
        golden["sharer.0.key"] = golden["sharer.0.key"][..., :5].contiguous()
    elif name == "fused.0.key is":
        golden["fused.0.key"] = golden["fused.0.key"][:, :1].contiguous()
    elif name == "fused.5.key, but the Receiver has 5 layers":
        golden["fused.5.key"] = golden["fused.4.key"].clone()
    elif name == "receiver.4.value has numbers that are not finite":
        golden["receiver.4.value"][0, 0, 0, 0] = torch.nan
    else:
        golden["input_ids"] += 1
    return golden


@pytest.mark.parametrize(
    "message",
    [
        "missing tensor fused.2.key",
        "layer 0: sharer is",
        "fused.0.key is",
        "fused.5.key, but the Receiver has 5 layers",
        "receiver.4.value has numbers that are not finite",
        "generated_fused does not begin with input_ids",
    ],
)
def test_a_golden_file_that_does_not_fit_is_refused_by_name(tmp_path: Path, message: str) -> None:
    save_file(broken(message), tmp_path / "golden.safetensors")
    done = run(GOLDEN / "final", tmp_path / "bundle", "--check", str(tmp_path / "golden.safetensors"))
    assert done.exit_code == 1
    assert message in str(done.exception)
    assert "golden.safetensors" in str(done.exception)


def test_weights_that_were_half_precision_are_stored_so_and_lose_nothing(tmp_path: Path) -> None:
    final = save_public_checkpoint(
        tmp_path / "final", {layer: [[0, 0]] for layer in range(5)}, {"sharer": (1, 12), "receiver": (2, 32)}
    )
    state = torch.load(final / "projector_0.pt", weights_only=True)
    torch.save({name: tensor.bfloat16() for name, tensor in state.items()}, final / "projector_0.pt")
    assert run(final, tmp_path / "bundle").exit_code == 0
    loaded = Bundle.load(tmp_path / "bundle").require_fuse().get_parameter("layers.4.key_in.weight")
    assert torch.equal(loaded, state["key_in.weight"].bfloat16().float())
