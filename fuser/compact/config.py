"""The shape of a compact fuse head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fuser.gate import check_annealing
from fuser.layer_map import LayerMap


@dataclass(frozen=True, slots=True)
class CompactConfig:
    """How wide it is.

    rank: width of what the Sharer half computes and of the trunk. inner: width inside the trunk. The temperature of the
    training gates falls geometrically over `anneal_steps`.
    """

    layer_map: LayerMap
    rank: int = 64
    inner: int = 128
    initial_temperature: float = 1.0
    final_temperature: float = 0.1
    anneal_steps: int = 500
    rotated_keys: bool = False
    kind: Literal["compact"] = "compact"

    def __post_init__(self) -> None:
        if self.rank < 1 or self.inner < 1:
            raise ValueError(f"rank and inner must be positive, got {self.rank} and {self.inner}")
        check_annealing(self.initial_temperature, self.final_temperature, self.anneal_steps)
