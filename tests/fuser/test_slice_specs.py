"""Which segments a slice has, by bundle and plan, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fuser.bundle.bundle import Bundle
from fuser.heads.c2c import C2CConfig
from fuser.heads.compact import CompactConfig
from fuser.slice_specs import layers_by_gate, slice_specs
from kvwire.errors import InvalidRequest, Unsupported
from kvwire.plan import Plan
from kvwire.segment import SegmentKind, SegmentSpec, SliceKind

KEY, VALUE = SegmentKind.KEY, SegmentKind.VALUE
KEY_CODE, VALUE_CODE = SegmentKind.KEY_CODE, SegmentKind.VALUE_CODE
Fused = Callable[[CompactConfig | C2CConfig], Bundle]


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture
def fused(bundle: Bundle) -> Fused:
    """A bundle with another fuse head, gates open from the last fed layer to the first by ever less."""

    def make(config: CompactConfig | C2CConfig) -> Bundle:
        made = replace(bundle.config, fuse=config, translate=None)
        head = made.new_fuse()
        assert head is not None
        if isinstance(config, CompactConfig):
            with torch.no_grad():
                gates = head.get_parameter("gate_logit")
                gates.copy_(torch.arange(1.0, 1 + gates.numel()).reshape(gates.shape))
        return Bundle(made, head.eval())

    return make


def specs_of(bundle: Bundle, positions: int = 4, **plan: object) -> tuple[SegmentSpec, ...]:
    wanted = Plan(codec="raw", **plan)  # type: ignore[arg-type]
    return slice_specs(bundle, SliceKind.SHARED, wanted, positions, "bfloat16")


def test_all_that_open_gates_read_is_sent_layer_after_layer(bundle: Bundle) -> None:
    specs = specs_of(bundle)
    assert [(spec.kind, spec.layer) for spec in specs] == bundle.require_fuse().needed()
    assert [spec.segment_id for spec in specs] == list(range(len(specs)))
    assert {(spec.shape, spec.dtype) for spec in specs} == {((2, 4, 16), "bfloat16")}


def test_layers_are_left_out(bundle: Bundle) -> None:
    assert [(s.kind, s.layer) for s in specs_of(bundle, layers=(0, 2))] == [(KEY, 0), (VALUE, 0), (VALUE, 2)]


@pytest.mark.parametrize("bottleneck", [False, True])
def test_layers_that_nothing_reads_are_refused(bundle: Bundle, bottleneck: bool) -> None:
    with pytest.raises(InvalidRequest, match=r"\[3, 4\]; read are \[0, 1, 2\]"):
        specs_of(bundle, layers=(0, 3, 4), bottleneck=bottleneck)


def test_source_halves_come_as_their_layer_is_computed_and_the_widest_gate_first(
    bundle: Bundle, fused: Fused
) -> None:
    layer_map = bundle.require_fuse().layer_map  # Sharer layer 0 feeds Receiver layers 0, 1 and 2
    made = fused(CompactConfig(layer_map, rank=5))
    specs = specs_of(made, bottleneck=True, layers=(0, 1))
    found = [(spec.kind, spec.layer, spec.shape) for spec in specs]
    assert found == [
        (VALUE_CODE, 2, (4, 5)),
        (KEY_CODE, 2, (4, 5)),
        (VALUE_CODE, 1, (4, 5)),
        (KEY_CODE, 1, (4, 5)),
        (VALUE_CODE, 0, (4, 5)),
        (KEY_CODE, 0, (4, 5)),
        (VALUE_CODE, 3, (4, 5)),
        (KEY_CODE, 3, (4, 5)),
    ]
    assert {spec.dtype for spec in specs} == {"float32"}


def test_closed_gates_have_no_source_half(bundle: Bundle) -> None:
    found = {(spec.kind, spec.layer) for spec in specs_of(bundle, bottleneck=True)}
    assert found == {(kind, layer) for kind in (KEY_CODE, VALUE_CODE) for layer in range(4)} | {
        (VALUE_CODE, 4)
    }


def test_the_public_head_has_no_source_half(bundle: Bundle, fused: Fused) -> None:
    public = fused(C2CConfig(bundle.require_fuse().layer_map, hidden_dim=8, intermediate_dim=8))
    with pytest.raises(Unsupported, match="no source half"):
        specs_of(public, bottleneck=True)


def test_layers_by_gate_begin_with_the_most_open(bundle: Bundle, fused: Fused) -> None:
    by_gate = fused(CompactConfig(bundle.require_fuse().layer_map))
    assert layers_by_gate(by_gate.require_fuse()) == [0, 3, 2, 1]  # layer 0 feeds three
    assert sorted(layers_by_gate(bundle.require_fuse())) == [0, 1, 2]


def test_codes_are_one_segment_or_none(bundle: Bundle) -> None:
    kind, code_dim = SliceKind.EXCERPT, bundle.require_translate().code_dim
    for asked in (0, code_dim):
        (spec,) = slice_specs(bundle, kind, Plan(codec="raw", code_dim=asked), 5, "float32")
        assert (spec.kind, spec.shape) == (SegmentKind.CODE, (5, code_dim))
    assert slice_specs(bundle, kind, Plan(codec="raw"), 0, "float32") == ()


def test_codes_are_cut_where_their_numbers_have_an_order(bundle: Bundle) -> None:
    (spec,) = slice_specs(bundle, SliceKind.EXCERPT, Plan(codec="raw", code_dim=7), 5, "float32")
    assert spec.shape == (5, 7)
    with pytest.raises(InvalidRequest, match="25"):
        slice_specs(bundle, SliceKind.EXCERPT, Plan(codec="raw", code_dim=25), 5, "float32")


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (SliceKind.SHARED, "code_dim", 4),
        (SliceKind.EXCERPT, "layers", (0,)),
        (SliceKind.EXCERPT, "last", 2),
        (SliceKind.EXCERPT, "bottleneck", True),
    ],
)
def test_a_field_that_the_kind_does_not_have_is_named(
    bundle: Bundle, kind: SliceKind, field: str, value: object
) -> None:
    with pytest.raises(InvalidRequest, match=f"{kind} has no {field}"):
        slice_specs(bundle, kind, Plan(codec="raw", **{field: value}), 3, "float32")  # type: ignore[arg-type]
