"""Calibrated components, one step for all of them, Rice codes: the smallest rungs (KVTC, arXiv 2511.01815).

Calibration finds, for each segment, the directions in which its positions vary, and by how much. With one step for all
of them the error is the same in each, which is reverse water-filling: a component that varies less than the step is not
sent, the others take the bits that their spread needs. The step is the finest that keeps a payload within its rate.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
import torch

from kvwire.codec.base import DTYPES, check_tensor, hash_parameters, narrowed, to_bytes
from kvwire.codec.rice import (
    LARGEST,
    Reals,
    Whole,
    check_room,
    count_bits,
    folded,
    levels,
    pack,
    smallest_step_within,
    step_from_bytes,
    step_to_bytes,
    unfolded,
    unpack,
)
from kvwire.errors import BadPayload, Unsupported
from kvwire.segment import SegmentKind, SegmentSpec

Place = tuple[SegmentKind, int, int]
"""Kind, layer and number of values of a position: kv_heads x head_dim, or those of a code."""
DROPPED: Final = 0.625
"""A component that varies by fewer steps than this is not sent: one bit a position would cost more than it tells."""
_EXACT: Final = 2.0**13
"""Rows of a basis add up to less than this, so that float64 sums of whole numbers times float16 are exact."""


@dataclass(frozen=True)
class Basis:
    """How the n numbers of a position vary, from calibration.

    Attributes:
        mean: (n,) float32.
        synthesis: (n, n) float16, a component a column: a position is the mean plus its components' sum.
        spread: (n,) float32, standard deviation of each component, descending.

    Raises:
        ValueError: shapes or dtypes are others, or a number is out of its range.
    """

    mean: torch.Tensor
    synthesis: torch.Tensor
    spread: torch.Tensor

    def __post_init__(self) -> None:
        shapes = [tuple(t.shape) for t in (self.mean, self.synthesis, self.spread)]
        n = len(self.mean)
        dtypes = self.mean.dtype, self.synthesis.dtype, self.spread.dtype
        if shapes != [(n,), (n, n), (n,)] or dtypes != (torch.float32, torch.float16, torch.float32):
            raise ValueError(f"a basis of shapes {shapes} and dtypes {dtypes}")
        if not bool(self.mean.isfinite().all()) or not bool(
            self.synthesis.double().abs().sum(1).max() < _EXACT
        ):
            raise ValueError("a basis with numbers that are not finite, or too large")
        if not bool((self.spread >= 0).all() & (self.spread.diff() <= 0).all() & self.spread[0].isfinite()):
            raise ValueError("spreads of a basis must be finite and descend to zero at the least")

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of its numbers."""
        return hashlib.sha256(b"".join(map(to_bytes, (self.mean, self.synthesis, self.spread)))).hexdigest()

    @cached_property
    def columns(self) -> Reals:
        """`synthesis` in float64."""
        return self.synthesis.double().numpy()

    @cached_property
    def analysis(self) -> Reals:
        """(n, n) float32, a component a column: of a position less the mean. The cloud's alone; its rounding harms
        nobody."""
        inverse: Reals = torch.linalg.inv(self.synthesis.double()).float().T.contiguous().numpy()
        return inverse

    @cached_property
    def _spread(self) -> Reals:
        """`spread` in float64."""
        spread: Reals = self.spread.double().numpy()
        return spread

    @cached_property
    def kept(self) -> Callable[[float], Whole]:
        """Rice parameters of the components that are sent at a step, the first ones: (1, components), descending."""
        return lru_cache(64)(self._kept)

    def _kept(self, step: float) -> Whole:
        spread = self._spread[: np.count_nonzero(self._spread >= DROPPED * step)]
        _, exponents = np.frexp(spread / (1.5 * step))
        widths: Whole = exponents.clip(0, 15)[None]
        return widths


class Transform:
    """The step (bfloat16), then the kept components (positions, components) in Rice codes.

    Which components are kept, and their Rice parameters, follow from the step and the basis. Encoded and decoded on the
    CPU; a float64 product of whole numbers and float16 is exact in any order, so the decoded bits are the same with any
    library and any number of threads. A code of which only the leading numbers are sent has the next larger basis, the
    numbers that are not sent being taken for average.

    Args:
        rate: bits a number on average over all segments of the bundle; it is in the name.
        bases: of every segment that can be encoded; of codes one or more, by width.
        bits: for each the bits a number that it may use.

    Raises:
        ValueError: a segment without bits.
    """

    def __init__(self, rate: float, bases: Mapping[Place, Basis], bits: Mapping[Place, float]) -> None:
        if any(not 0 < share <= 32 for share in bits.values()):
            raise ValueError(f"transform-{rate:g}: a segment with no bits, or more than 32 a number")
        self.name = f"transform-{rate:g}"
        self._bases, self._bits = dict(bases), dict(bits)
        self._widths = sorted(width for kind, _, width in bases if kind is SegmentKind.CODE)
        parameters = [[*place, basis.digest, bits[place]] for place, basis in sorted(bases.items())]
        self.parameters_hash = hash_parameters(self.name, {"version": 1, "bases": parameters})

    def max_bytes(self, spec: SegmentSpec) -> int:
        bits = self._bits[self._place(spec)]
        return 2 + math.ceil(bits * spec.elements / 8) if spec.elements else 0

    def encode(self, tensor: torch.Tensor, spec: SegmentSpec) -> bytes:
        check_tensor(tensor, spec)
        place = self._place(spec)
        if not spec.elements:
            return b""
        basis = self._bases[place]
        numbers = by_position(tensor.detach().to("cpu", torch.float32)).numpy()
        n = numbers.shape[1]
        parts = (numbers - basis.mean[:n].numpy()) @ basis.analysis[:n]

        @lru_cache(2)
        def tried(step: float) -> tuple[Whole, Whole]:
            widths = basis.kept(step)
            return folded(levels(parts[:, : widths.size], step)), widths

        def bits_at(step: float) -> int:
            return count_bits(*tried(step))

        likely = min(len(basis.spread) - 1, int(self._bits[place] * n / 2))
        guess, least = float(basis.spread[likely]), float(np.abs(parts).max()) / LARGEST
        step = smallest_step_within(bits_at, 8 * (self.max_bytes(spec) - 2), guess, least, spec.elements)
        found, widths = tried(step)
        return step_to_bytes(step) + pack(found, widths)

    def decode(self, payload: bytes, spec: SegmentSpec, device: torch.device | str = "cpu") -> torch.Tensor:
        if len(payload) > self.max_bytes(spec):
            raise BadPayload(f"{len(payload)} bytes where at most {self.max_bytes(spec)} were due")
        if not spec.elements:
            return torch.empty(spec.shape, dtype=DTYPES[spec.dtype], device=device)
        basis, view = self._bases[self._place(spec)], memoryview(payload)
        step = step_from_bytes(view[:2])
        widths = basis.kept(step)
        check_room(view[2:], widths.size * spec.positions)
        found = unfolded(unpack(view[2:], widths, (spec.positions, widths.size)))
        n = spec.elements // spec.positions
        sums = found.astype(np.float64) @ basis.columns[:n, : widths.size].T
        numbers = torch.from_numpy(sums * step + basis.mean[:n].double().numpy())
        shaped = numbers if spec.kind.is_code else _by_head(numbers, spec)
        return narrowed(shaped, spec).to(device)

    def _place(self, spec: SegmentSpec) -> Place:
        """Where this segment's basis is.

        Raises:
            Unsupported: the bundle has none.
        """
        n = spec.shape[-1] if spec.kind.is_code else spec.shape[0] * spec.shape[2]
        width = min((w for w in self._widths if w >= n), default=n) if spec.kind is SegmentKind.CODE else n
        place = spec.kind, spec.layer, width
        if place not in self._bases:
            raise Unsupported(f"{self.name} for a {spec.kind} of layer {spec.layer} with {n} numbers")
        return place


def by_position(tensor: torch.Tensor) -> torch.Tensor:
    """A segment's numbers, (kv_heads, positions, head_dim) or (positions, n), as its basis has them: (positions, n)."""
    return tensor if tensor.dim() == 2 else tensor.transpose(0, 1).flatten(1)


def _by_head(numbers: torch.Tensor, spec: SegmentSpec) -> torch.Tensor:
    """(positions, n) -> (kv_heads, positions, head_dim)."""
    heads, positions, channels = spec.shape
    return numbers.reshape(positions, heads, channels).transpose(0, 1).contiguous()
