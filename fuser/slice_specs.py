"""What a slice is made of: the same list of segments for cloud and edge, from what both hold: bundle and plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.heads.compact import CompactFuse
from fuser.heads.fuse import KEYS, VALUES, FuseHead
from kvwire.errors import InvalidRequest, Unsupported
from kvwire.plan import Plan
from kvwire.segment import SegmentKind, SegmentSpec, SliceKind

HALVES = {
    SegmentKind.KEY_CODE: range(KEYS, KEYS + 1),
    SegmentKind.VALUE_CODE: range(VALUES, VALUES + 1),
}
"""Halves of a fuse head that the source half in a segment is of."""

MAX_WRITTEN = 24
"""Positions of a draft at most: a short answer, and no more of the document than that."""


class Described(Protocol):
    """Whatever says what a slice is made of: the Sharer's cut, or a header off the wire."""

    @property
    def kind(self) -> SliceKind: ...
    @property
    def specs(self) -> tuple[SegmentSpec, ...]: ...
    @property
    def spans(self) -> tuple[tuple[int, int, int], ...]: ...
    @property
    def tail(self) -> int: ...


@dataclass(frozen=True, slots=True)
class SliceLayout:
    """What a slice is made of, before any of it is computed or has come.

    specs: segments in sending order. spans: (section, character start, character end) of each shared position, start
    and end within the section's text; none where the slice is not shared. tail: template positions after them.
    """

    kind: SliceKind
    specs: tuple[SegmentSpec, ...]
    spans: tuple[tuple[int, int, int], ...] = ()
    tail: int = 0

    @classmethod
    def of(cls, described: Described) -> SliceLayout:
        """The layout of what is cut, or of what a header announces."""
        return cls(described.kind, described.specs, described.spans, described.tail)


def slice_specs(
    bundle: Bundle, kind: SliceKind, plan: Plan, positions: int, dtype: str
) -> tuple[SegmentSpec, ...]:
    """The segments of a slice in sending order: layer after layer, as a prefill reaches them.

    Of several source halves that one Sharer layer gives, that of the widest open gate comes first.

    Args:
        positions: that travel.
        dtype: of K and V; codes are float32.

    Raises:
        Unsupported: the bundle makes no such slices, or its heads do not know what the plan asks for.
        InvalidRequest: the plan is for another kind of slice, or for layers or values that there are not.
    """
    plan.check(kind)
    if kind is not SliceKind.SHARED:
        code_dim = _code_dim(bundle, plan)
        return (SegmentSpec(0, SegmentKind.CODE, -1, (positions, code_dim), "float32"),) if positions else ()
    head = bundle.require_fuse()
    _check_layers(head, plan)
    shapes: list[tuple[SegmentKind, int, tuple[int, ...], str]]
    if plan.bottleneck:
        split = split_head(bundle)
        shapes = [
            (kind, layer, (positions, split.config.rank), "float32")
            for kind, layer in _source_halves(split)
            if _sent(plan, source_of(split, layer))
        ]
    else:
        sharer = bundle.config.sharer_geometry
        shape = (sharer.kv_heads, positions, sharer.head_dim)
        shapes = [(kind, layer, shape, dtype) for kind, layer in head.needed() if _sent(plan, layer)]
    return tuple(SegmentSpec(number, *about) for number, about in enumerate(shapes))


def most_positions(bundle: Bundle, plan: Plan, kind: SliceKind) -> int:
    """The most positions that an excerpt or a draft by this plan has, whatever the document."""
    quoted = bundle.config.selection.positions
    if kind is SliceKind.EXCERPT:
        return min(plan.positions or quoted, quoted)
    return most_written(plan) + most_quoted(bundle, plan)


def most_quoted(bundle: Bundle, plan: Plan) -> int:
    """The most positions of a document that stand before a draft by this plan."""
    return min(plan.quoted, bundle.config.selection.positions)


def most_written(plan: Plan) -> int:
    """The most positions that the Sharer writes for a draft by this plan."""
    return min(plan.positions or MAX_WRITTEN, MAX_WRITTEN)


def layers_by_gate(head: FuseHead) -> list[int]:
    """The Sharer layers that open gates read, those with the widest gates first: what a plan of fewer layers keeps."""
    weights = {layer: 0.0 for _, layer in head.needed()}
    for layer, source in head.layer_map.mapped:
        logits = head.gate_logits(layer)
        if source in weights:
            weights[source] += float(logits.sigmoid()[logits > 0].sum())
    return sorted(weights, key=lambda layer: (-weights[layer], layer))


def split_head(bundle: Bundle) -> CompactFuse:
    """The fuse head, if its source half can be computed apart.

    Raises:
        Unsupported: it cannot, or there is none.
    """
    head = bundle.require_fuse()
    if not isinstance(head, CompactFuse):
        raise Unsupported("this fuse head has no source half: ask for it without bottleneck")
    return head


def source_of(head: FuseHead, layer: int) -> int:
    """The Sharer layer that feeds a Receiver layer; one must."""
    source = head.layer_map[layer]
    assert source is not None
    return source


def made_from(head: FuseHead, kind: SegmentKind, layer: int) -> tuple[SegmentKind, int]:
    """KEY or VALUE, and the Sharer layer, that a segment of a shared slice holds or is made from."""
    if not kind.is_code:
        return kind, layer
    half = SegmentKind.KEY if kind is SegmentKind.KEY_CODE else SegmentKind.VALUE
    return half, source_of(head, layer)


def shared_segment(bundle: Bundle, kind: SegmentKind, layer: int, half: Tensor) -> Tensor:
    """What a segment of a shared slice holds.

    Args:
        half: K, as the fuse head reads it, or V that it is `made_from`: (kv_heads, positions, head_dim).

    Returns:
        The half as it is, or its source half (positions, rank) float32.
    """
    if not kind.is_code:
        return half
    with torch.inference_mode():
        return split_head(bundle).source_half(layer, HALVES[kind], half[None, None])[0, 0]


def _code_dim(bundle: Bundle, plan: Plan) -> int:
    """Number of values of a code that travel."""
    config = bundle.require_translate().config
    if not plan.code_dim or plan.code_dim == config.code_dim:
        return config.code_dim
    if plan.code_dim > config.code_dim:
        raise InvalidRequest(f"code_dim {plan.code_dim}: this bundle's codes have {config.code_dim} values")
    return plan.code_dim


def _check_layers(head: FuseHead, plan: Plan) -> None:
    read = {layer for _, layer in head.needed()}
    unknown = [layer for layer in plan.layers if layer not in read]
    if unknown:
        raise InvalidRequest(f"no open gate reads Sharer layers {unknown}; read are {sorted(read)}")


def _sent(plan: Plan, sharer_layer: int) -> bool:
    return not plan.layers or sharer_layer in plan.layers


def _source_halves(head: CompactFuse) -> list[tuple[SegmentKind, int]]:
    """(kind, Receiver layer) of every source half that an open gate reads."""
    found = []
    for layer, gates in enumerate(head.open_layers()):
        kinds = (SegmentKind.KEY_CODE, SegmentKind.VALUE_CODE)
        found += [(kind, layer) for kind, is_open in zip(kinds, gates, strict=True) if is_open]

    def order(half: tuple[SegmentKind, int]) -> tuple[int, float]:
        kind, layer = half
        return source_of(head, layer), -float(head.gate_logits(layer)[list(HALVES[kind])].max())

    return sorted(found, key=order)
