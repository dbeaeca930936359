"""A dial: how excerpts are chosen and sent in some rows, where that is not the bundle's own way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product

from fuser.bundle import Bundle
from fuser.select import SelectionConfig
from fuser.slice_specs import slice_specs
from kvwire.codec import CodecRegistry
from kvwire.plan import WHOLE, Parts, Plan
from kvwire.segment import SliceKind


@dataclass(frozen=True, slots=True)
class Dial:
    """How an excerpt is chosen and sent.

    plan: its positions, code_dim and codec count; 0 positions are as many as the bundle takes. pool: width of the
    max-pooling of scores, as in `SelectionConfig`; 0 is the bundle's own.
    """

    plan: Plan = WHOLE
    pool: int = 0

    @property
    def selection(self) -> Dial:
        """What decides which positions are chosen, and nothing of how they are sent."""
        return Dial(replace(WHOLE, positions=self.plan.positions), self.pool)

    def select(self, config: SelectionConfig) -> SelectionConfig:
        """The bundle's selection with this dial's numbers in it."""
        positions, pool = self.plan.positions or config.positions, self.pool or config.pool
        return replace(config, positions=positions, pool=pool)

    def __str__(self) -> str:
        """As row names have it, such as `m8 p3 int8:256`; empty for the bundle's own way."""
        plan = self.plan
        sent = plan_name(plan)
        words = (
            f"m{plan.positions}" if plan.positions else "",
            f"p{self.pool}" if self.pool else "",
            "" if sent == WHOLE.codec else sent,
        )
        return " ".join(word for word in words if word)


def plan_name(plan: Plan) -> str:
    """How a slice is sent, such as `int8:256:padded`, or `raw:last3:bottleneck` of shared ones."""
    words = (
        plan.codec,
        str(plan.code_dim or ""),
        f"last{plan.last}" if plan.last else "",
        "" if plan.parts is Parts.BOTH else plan.parts.value,
        "bottleneck" if plan.bottleneck else "",
        "padded" if plan.padded else "",
    )
    return ":".join(word for word in words if word)


def dials(bundle: Bundle, positions: Iterable[int], pool: int, plans: Iterable[Plan]) -> tuple[Dial, ...]:
    """Every number of positions with every plan, each once; what is the bundle's own way is written as such.

    Args:
        positions: 0 or none is the bundle's own number. plans: none is `raw` with whole codes.

    Raises:
        ValueError: a pool that the bundle's selection cannot have.
        InvalidRequest, Unsupported: a code_dim that its codes do not have, or that they have no order for; a codec that
            neither the wire nor the bundle has.
    """
    own = bundle.config.selection
    registry = registry_of(bundle)
    found: dict[Dial, None] = {}
    for count, plan in product(list(positions) or [0], list(plans) or [WHOLE]):
        plan.check(SliceKind.EXCERPT)
        registry.get(plan.codec)
        if plan.code_dim:
            (spec,) = slice_specs(bundle, SliceKind.EXCERPT, plan, 1, "float32")
            whole = spec.shape[1] == bundle.require_translate().code_dim
            plan = replace(plan, code_dim=0 if whole else plan.code_dim)
        plan = replace(plan, positions=0 if count == own.positions else count)
        dial = Dial(plan, 0 if pool == own.pool else pool)
        dial.select(own)
        found[dial] = None
    return tuple(found)


def registry_of(bundle: Bundle) -> CodecRegistry:
    """The codecs that a bundle's slices may be sent with."""
    return CodecRegistry(bundle.codecs())
