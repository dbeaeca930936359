"""A plan: what of a slice is sent, and how. An edge asks for one; a profile says what each one is worth."""

from dataclasses import dataclass
from enum import StrEnum

from kvwire.errors import InvalidRequest


class Parts(StrEnum):
    """Which halves of a shared slice are sent."""

    BOTH = "both"
    KEYS = "keys"
    VALUES = "values"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What of a slice is sent, and how.

    Attributes:
        codec: name of the codec of every segment.
        positions: excerpt or summary positions at most; 0 takes as many as bundle and policy allow.
        code_dim: leading numbers of each code that are sent; 0 sends all. A bundle's codes are ordered: the first
            numbers matter most.
        layers: Sharer layers whose segments a shared slice has; none named means all that open gates read.
        parts: halves of a shared slice.
        last: only so many of the last positions of a shared slice; 0 sends all.
        bottleneck: a shared slice holds the source halves of the Fuser's input map, computed in the cloud, in place of
            K and V.
        padded: every payload is filled up to the most its codec can need, so that its size tells nothing.

    Raises:
        InvalidRequest: a number is negative, or a layer stands there twice.
    """

    codec: str
    positions: int = 0
    code_dim: int = 0
    layers: tuple[int, ...] = ()
    parts: Parts = Parts.BOTH
    last: int = 0
    bottleneck: bool = False
    padded: bool = False

    def __post_init__(self) -> None:
        if min(self.positions, self.code_dim, self.last, *self.layers, 0) < 0:
            raise InvalidRequest("a plan has no negative numbers")
        if list(self.layers) != sorted(set(self.layers)):
            raise InvalidRequest("a plan names layers in ascending order, each once")
