"""Generation as the public code does it: the tokens it gave, on both sides of a change in transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fuser.heads.c2c import C2CFuse
from fuser.heads.compact import CompactConfig, CompactFuse
from fuser.kv.generate import token_ids
from fuser.kv.geometry import Geometry
from fuser.kv.past import Past
from fuser.kv.turns import ModelTurns
from fuser.lab.c2c.checkpoint import import_public
from fuser.lab.c2c.generate import LATER, PINNED, fused_cache, generate_public
from fuser.models.load import load_weights

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    """What the public code (d03cc7b on transformers 5.23) computed with the checkpoint beside it."""
    return load_file(GOLDEN / "golden.safetensors")


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    """Receiver and Sharer."""
    return load_weights(GOLDEN / "receiver"), load_weights(GOLDEN / "sharer")


@pytest.fixture(scope="module")
def head(models: tuple[Any, Any]) -> C2CFuse:
    receiver, sharer = models
    return import_public(GOLDEN / "final", Geometry.of(sharer.config), Geometry.of(receiver.config))


def test_fused_keys_and_values_equal_the_public_code_in_every_layer(
    golden: dict[str, Tensor], models: tuple[Any, Any], head: C2CFuse
) -> None:
    with torch.inference_mode():
        cache = fused_cache(*models, head, golden["input_ids"], golden["input_ids"])
    for layer, mine in enumerate(cache.layers):
        torch.testing.assert_close(mine.keys, golden[f"fused.{layer}.key"], rtol=0, atol=1e-5)
        torch.testing.assert_close(mine.values, golden[f"fused.{layer}.value"], rtol=0, atol=1e-5)
    assert {gate for gates in head.open_layers() for gate in gates} == {True, False}


def test_greedy_tokens_equal_the_public_code(
    golden: dict[str, Tensor], models: tuple[Any, Any], head: C2CFuse
) -> None:
    ids = golden["input_ids"]
    new = golden["generated_fused"].shape[1] - ids.shape[1]
    found = generate_public(*models, head, ids, ids, new, LATER)
    assert torch.equal(found, golden["generated_fused"])
    assert not torch.equal(found, golden["generated_receiver_only"])


def test_the_library_that_is_pinned_lets_new_tokens_see_the_whole_cache(
    golden: dict[str, Tensor], models: tuple[Any, Any], head: C2CFuse
) -> None:
    ids = golden["input_ids"]
    with torch.inference_mode():
        cache = fused_cache(*models, head, ids[:, :-1], ids[:, :-1])
    past = Past(cache, torch.zeros(1, dtype=torch.int64), padded=False)
    expected = list(token_ids(ModelTurns(models[0]), ids[0, -1:], past, frozenset(), 16))
    found = generate_public(*models, head, ids, ids, 16, PINNED)[0, ids.shape[1] :].tolist()
    assert found == expected
    later = golden["generated_fused"][0, ids.shape[1] :].tolist()
    assert found[0] == later[0] and found[1:] != later[1:]


def test_rows_of_a_batch_do_not_mix(
    golden: dict[str, Tensor], models: tuple[Any, Any], head: C2CFuse
) -> None:
    ids = torch.cat((golden["input_ids"], golden["input_ids"].flip(1)))
    both = generate_public(*models, head, ids, ids, 6)
    for row in (0, 1):
        one = ids[row : row + 1]
        assert torch.equal(generate_public(*models, head, one, one, 6), both[row : row + 1])


def test_what_the_public_code_could_not_run_is_refused(
    golden: dict[str, Tensor], models: tuple[Any, Any], head: C2CFuse
) -> None:
    ids = golden["input_ids"]
    with pytest.raises(ValueError, match="no position to fuse"):
        generate_public(*models, head, ids[:, :1], ids[:, :1], 2)
    with pytest.raises(ValueError, match="as many on both sides"):
        generate_public(*models, head, ids, ids[:, :-1], 2)
    bare = CompactFuse(CompactConfig(head.layer_map), head.sharer, head.receiver)
    with pytest.raises(ValueError, match="rotated keys"):
        generate_public(*models, bare, ids, ids, 2)
