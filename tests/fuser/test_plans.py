"""What a plan leaves out stays the Receiver's own; what it sends is worth what the whole slice is worth."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.heads.compact import CompactConfig
from fuser.models.load import load_model
from fuser.receiver import Receiver
from fuser.sharer import Sharer
from fuser.slice_specs import SliceLayout, slice_specs
from kvwire.plan import WHOLE, Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import Segment, SliceKind
from ops.chaos.in_one_process import LocalAnswer, answer_in_one_process, cache_of

DOCUMENTS = {"note": "Ilse Brandvik keeps the spare key under the third stone from the boat house door."}
SECTIONS = (
    Section(Role.DOCUMENT, Visibility.CLOUD, document_id="note"),
    Section(Role.QUESTION, Visibility.SHARED, text="Who keeps the spare key? 谁有钥匙？✅"),
)
Pair = tuple[Sharer, Receiver]
MEMBERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rotated": {"rotated_keys": True},
}


@pytest.fixture(scope="module")
def pair(tiny_sharer: Path, tiny_receiver: Path, tiny_bundle: Path) -> Pair:
    sharer, receiver = load_model(tiny_sharer), load_model(tiny_receiver)
    return Sharer(*sharer, Bundle.load(tiny_bundle)), Receiver(*receiver, Bundle.load(tiny_bundle))


@pytest.fixture(scope="module")
def member(pair: Pair) -> Callable[[dict[str, Any]], Pair]:
    """The pair with another compact head: random, most gates open."""

    def make(changes: dict[str, Any]) -> Pair:
        sharer, receiver = pair
        shape = CompactConfig(sharer.bundle.require_fuse().layer_map, rank=8, inner=12)
        config = dataclasses.replace(
            sharer.bundle.config, fuse=dataclasses.replace(shape, **changes), translate=None
        )
        head = config.new_fuse()
        assert head is not None
        generator = torch.Generator().manual_seed(8)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.normal_(0.0, 0.3, generator=generator)
            head.get_parameter("gate_logit").fill_(1.0)[-1, 0] = -1.0
        bundle = Bundle(config, head.eval().requires_grad_(False))
        return (
            Sharer(sharer.model, sharer.tokenizer, bundle),
            Receiver(receiver.model, receiver.tokenizer, bundle),
        )

    return make


def answered(pair: Pair, kind: SliceKind = SliceKind.SHARED, plan: Plan = WHOLE) -> LocalAnswer:
    return answer_in_one_process(*pair, SECTIONS, DOCUMENTS, kind, 12, 4, plan)


def own(pair: Pair) -> tuple[list[Tensor], list[Tensor]]:
    """The Receiver's cache before a shared slice."""
    return cache_of(pair[1].begin(SECTIONS).prefill(SliceKind.SHARED))


def changed(ours: list[Tensor], other: list[Tensor]) -> list[list[int]]:
    """Layer by layer the positions that differ."""
    return [
        (a != b).any(dim=(0, 1, 3)).nonzero().flatten().tolist() for a, b in zip(ours, other, strict=True)
    ]


@pytest.mark.parametrize("name", MEMBERS)
def test_source_halves_give_the_cache_that_keys_and_values_give(
    member: Callable[[dict[str, Any]], Pair], name: str
) -> None:
    made = member(MEMBERS[name])
    whole, halves = answered(made), answered(made, plan=Plan(codec="raw", bottleneck=True))
    assert all(segment.spec.kind.is_code for segment in halves.segments)
    assert {s.spec.layer for s in halves.segments} == set(range(6))
    before_keys, before_values = own(made)
    for mine, theirs, before in (
        (whole.keys, halves.keys, before_keys),
        (whole.values, halves.values, before_values),
    ):
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        assert sum(map(len, changed(mine, before))) > 20


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_closed_gate_changes_no_bit_of_its_half(
    member: Callable[[dict[str, Any]], Pair], bottleneck: bool
) -> None:
    made = member(MEMBERS["plain"])  # the last layer's keys have a closed gate, its values an open one
    local, (keys, values) = answered(made, plan=Plan(codec="raw", bottleneck=bottleneck)), own(made)
    assert not changed(local.keys, keys)[-1]
    assert changed(local.values, values)[-1]


def test_source_halves_of_some_layers_fuse_the_receiver_layers_that_these_feed(pair: Pair) -> None:
    plan = Plan(codec="raw", bottleneck=True, layers=(1,))
    local, (keys, values) = answered(pair, plan=plan), own(pair)
    for mine, ours in ((local.keys, keys), (local.values, values)):
        assert [layer for layer, at in enumerate(changed(mine, ours)) if at] == [3]


def test_layers_left_out_leave_the_receiver_layers_that_they_feed(pair: Pair) -> None:
    whole, local, (keys, values) = (
        answered(pair),
        answered(pair, plan=Plan(codec="raw", layers=(1,))),
        own(pair),
    )
    for mine, all_of_it, before in ((local.keys, whole.keys, keys), (local.values, whole.values, values)):
        for layer in range(6):
            assert torch.equal(mine[layer], (all_of_it if layer == 3 else before)[layer])


@pytest.mark.parametrize("last", [1, 3, 4, 5, 6, 9, 14, 1000])
def test_only_positions_that_have_a_source_are_fused(pair: Pair, last: int) -> None:
    whole, local, (keys, values) = (
        answered(pair),
        answered(pair, plan=Plan(codec="raw", last=last)),
        own(pair),
    )
    assert local.cut.positions == min(last, whole.cut.positions)
    everything = changed(whole.values, values)[0]
    for mine, all_of_it, before in ((local.keys, whole.keys, keys), (local.values, whole.values, values)):
        for layer, at in enumerate(changed(mine, before)):
            assert at == everything[len(everything) - len(at) :]
            for a, b in zip(
                mine[layer][:, :, at[2:]].unbind(2), all_of_it[layer][:, :, at[2:]].unbind(2), strict=True
            ):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    fused = changed(local.values, values)[0]
    assert len(fused) == len(everything) if last == 1000 else len(fused) < len(everything)
    assert last < 3 or fused


@pytest.mark.parametrize("numbers", [1, 9, 24])
def test_numbers_of_a_code_that_are_not_sent_count_as_zero(pair: Pair, numbers: int) -> None:
    plan = Plan(codec="raw", code_dim=numbers, positions=5)
    whole = answered(pair, SliceKind.EXCERPT, Plan(codec="raw", positions=5))
    local = answered(pair, SliceKind.EXCERPT, plan)
    (segment,), (all_numbers,) = local.segments, whole.segments
    assert segment.spec.shape == (5, numbers)
    assert torch.equal(segment.tensor, all_numbers.tensor[:, :numbers])
    filled = all_numbers.tensor.clone()
    filled[:, numbers:] = 0
    prefilled = pair[1].begin(SECTIONS).prefill(SliceKind.EXCERPT)

    (spec,) = slice_specs(pair[1].bundle, SliceKind.EXCERPT, WHOLE, 5, "float32")

    intake = prefilled.take(SliceLayout(SliceKind.EXCERPT, (spec,)))
    intake.add(Segment(spec, filled))
    keys, values = cache_of(intake.done())
    assert all(torch.equal(a, b) for a, b in zip(keys + values, local.keys + local.values, strict=True))


@pytest.mark.parametrize(("asked", "allowed", "sent"), [(0, 4, 4), (3, 12, 3), (6, 2, 2), (5, 0, 0)])
def test_the_plan_and_the_policy_each_lower_the_positions(
    pair: Pair, asked: int, allowed: int, sent: int
) -> None:
    sections = [dataclasses.replace(SECTIONS[0], document_id=None, text=DOCUMENTS["note"]), SECTIONS[1]]
    plan = Plan(codec="raw", positions=asked)
    for kind in (SliceKind.EXCERPT, SliceKind.DRAFT):
        assert pair[0].layout(sections, kind, allowed, plan).positions == sent


def test_the_sharer_stops_at_the_last_layer_that_a_plan_names(pair: Pair) -> None:
    reached: list[int] = []
    hooks = [
        layer.register_forward_pre_hook(lambda *_, number=number: reached.append(number))
        for number, layer in enumerate(pair[0].model.get_decoder().layers)
    ]
    answered(pair, plan=Plan(codec="raw", layers=(1,)))
    for hook in hooks:
        hook.remove()
    assert max(reached) == 1
