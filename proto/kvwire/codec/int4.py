"""Four bits a number between the lowest and the highest of a small group (KIVI, arXiv 2402.02750).

Groups run along a key's positions, each channel apart, and along the channels of a value or code, each token apart.
Sixteen steps are few, so they span what a group holds and not the way from zero: many key channels are far from it.
"""

from typing import Final

import numpy as np
import torch

from kvwire.codec.base import hash_parameters
from kvwire.codec.int8 import step_axis
from kvwire.codec.layout import DTYPES, check_tensor, from_bytes, narrowed, to_bytes
from kvwire.codec.step import checked, rounded_up
from kvwire.errors import BadPayload
from kvwire.segment import SegmentSpec

_GROUP: Final = 32
_HIGHEST: Final = 15


class Int4:
    """Lowest numbers, then steps, both bfloat16, (rows, groups); then the numbers (rows, n), two to a byte.

    Rows are what is left of the segment when the axis of the groups is moved to the end; the last group of a row may be
    short, and the last byte half full. Nothing at all for no elements. Decoding is a product and a sum in float32 and
    one rounding to the spec's dtype, so every device gives the same bits.
    """

    name: Final = "int4"
    parameters_hash: Final = hash_parameters(
        "int4", {"version": 1, "step": "bfloat16-up", "lowest": "bfloat16-down", "group": _GROUP}
    )

    def max_bytes(self, spec: SegmentSpec) -> int:
        rows, groups = _rows_and_groups(spec)
        return 4 * rows * groups + (spec.elements + 1) // 2

    def encode(self, tensor: torch.Tensor, spec: SegmentSpec) -> bytes:
        check_tensor(tensor, spec)
        if not spec.elements:
            return b""
        rows, groups = _rows_and_groups(spec)
        numbers = tensor.detach().to("cpu", torch.float32).movedim(step_axis(spec), -1).reshape(rows, -1)
        filled = torch.arange(groups * _GROUP, device=numbers.device).clamp(max=numbers.shape[1] - 1)
        grouped = numbers[:, filled].unflatten(1, (groups, _GROUP)).double()
        lowest = _rounded_down(grouped.amin(-1).float())
        spread = grouped.amax(-1) - lowest.double()
        steps = rounded_up((spread / _HIGHEST).float())
        wide, above = steps.double()[..., None], grouped - lowest.double()[..., None]
        levels = torch.where(wide > 0, above / wide, 0.0).round().clamp(0, _HIGHEST)
        flat = levels.to(torch.uint8).flatten(1)[:, : numbers.shape[1]].flatten().numpy()
        flat = np.append(flat, np.zeros(len(flat) % 2, np.uint8))
        return to_bytes(lowest) + to_bytes(steps) + bytes(flat[::2] | flat[1::2] << 4)

    def decode(self, payload: bytes, spec: SegmentSpec, device: torch.device | str = "cpu") -> torch.Tensor:
        if len(payload) != self.max_bytes(spec):
            raise BadPayload(f"{len(payload)} bytes where {self.max_bytes(spec)} were due")
        if not spec.elements:
            return torch.empty(spec.shape, dtype=DTYPES[spec.dtype], device=device)
        rows, groups = _rows_and_groups(spec)
        cut, view = 2 * rows * groups, memoryview(payload)
        lowest = from_bytes(view[:cut], torch.bfloat16, (rows, groups), device).float()
        if not bool(lowest.isfinite().all()):
            raise BadPayload("a lowest number that is infinite or not a number")
        steps = checked(from_bytes(view[cut : 2 * cut], torch.bfloat16, (rows, groups), device))
        pairs = from_bytes(view[2 * cut :], torch.uint8, ((spec.elements + 1) // 2,), device)
        levels = torch.stack((pairs & _HIGHEST, pairs >> 4), dim=1).flatten()
        if bool(levels[spec.elements :].any()):
            raise BadPayload("bits after the last number")
        axis = step_axis(spec)
        moved = [*spec.shape[:axis], *spec.shape[axis + 1 :], spec.shape[axis]]
        group = torch.arange(spec.shape[axis], device=device) // _GROUP
        product = levels[: spec.elements].reshape(rows, -1).float() * steps[:, group]
        return narrowed((product + lowest[:, group]).reshape(moved).movedim(-1, axis).contiguous(), spec)


def _rounded_down(numbers: torch.Tensor) -> torch.Tensor:
    """float32 -> bfloat16 that are no larger, and finite."""
    cut = (numbers.view(torch.int32) >> 16).to(torch.int16).view(torch.bfloat16)  # towards zero
    return torch.where(numbers < 0, rounded_up(numbers), cut).clamp(min=torch.finfo(torch.bfloat16).min)


def _rows_and_groups(spec: SegmentSpec) -> tuple[int, int]:
    length = spec.shape[step_axis(spec)]
    return (spec.elements // length, -(-length // _GROUP)) if length else (0, 0)
