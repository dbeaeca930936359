"""The plans of an evaluation: how slices are cut and sent in some rows, where that is not the bundle's own way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product

from fuser.bundle.bundle import Bundle
from fuser.slice_specs import slice_specs
from kvwire.codec import CodecRegistry
from kvwire.plan import WHOLE, Plan
from kvwire.segment import SliceKind


def excerpt_plans(bundle: Bundle, positions: Iterable[int], plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """Every number of positions with every plan, each once; what is the bundle's own way is written as such.

    Args:
        positions: none is what the plans say. plans: none is `raw` with whole codes.

    Raises:
        InvalidRequest, Unsupported: a code_dim that its codes do not have, or that they have no order for; a codec that
            neither the wire nor the bundle has.
    """
    own, registry = bundle.config.selection.positions, registry_of(bundle)
    counts: list[int | None] = [*positions] or [None]
    found: dict[Plan, None] = {}
    for count, plan in product(counts, list(plans) or [WHOLE]):
        plan.check(SliceKind.EXCERPT)
        registry.get(plan.codec)
        if plan.code_dim:
            (spec,) = slice_specs(bundle, SliceKind.EXCERPT, plan, 1, "float32")
            whole = spec.shape[1] == bundle.require_translate().code_dim
            plan = replace(plan, code_dim=0 if whole else plan.code_dim)
        wanted = plan.positions if count is None else count
        found[replace(plan, positions=0 if wanted == own else wanted)] = None
    return tuple(found)


def draft_plans(bundle: Bundle, plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """Every plan of drafts, each once; none is the draft alone, raw. Raises as `shared_plans`."""
    return _served(bundle, SliceKind.DRAFT, plans) or (WHOLE,)


def shared_plans(bundle: Bundle, plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """The whole slice, and every plan besides, each once.

    Raises:
        InvalidRequest, Unsupported: a plan that is of another kind of slice, or that the bundle cannot serve.
    """
    return tuple(dict.fromkeys((WHOLE, *_served(bundle, SliceKind.SHARED, plans))))


def _served(bundle: Bundle, kind: SliceKind, plans: Iterable[Plan]) -> tuple[Plan, ...]:
    found = tuple(dict.fromkeys(plans))
    for plan in found:
        plan.check(kind)
        registry_of(bundle).get(plan.codec)
        slice_specs(bundle, kind, plan, 1, "float32")
    return found


def registry_of(bundle: Bundle) -> CodecRegistry:
    return CodecRegistry(bundle.codecs())
