"""Eight bits a number: keys scaled per channel, values and codes per token (KIVI, arXiv 2402.02750).

Keys have a few channels that are large at every position, so each channel has its own step; values and codes
differ from token to token. Steps are bfloat16, rounded up, so that no number needs more than 127 of them.
"""

from typing import Final

import torch

from kvwire.codec.base import hash_parameters
from kvwire.codec.layout import DTYPES, check_tensor, from_bytes, narrowed, to_bytes
from kvwire.codec.step import checked, rounded_up
from kvwire.errors import BadPayload
from kvwire.segment import SegmentKind, SegmentSpec


class Int8:
    """All steps, then all numbers, both row-major.

    A key (kv_heads, positions, head_dim) has steps (kv_heads, 1, head_dim), a value (kv_heads, positions, 1),
    a code (positions, code_dim) has (positions, 1). Nothing at all for no elements. Decoding is one product
    in float32 and one rounding to the spec's dtype, so every device gives the same bits.
    """

    name: Final = "int8"
    parameters_hash: Final = hash_parameters("int8", {"version": 1, "step": "bfloat16-up", "range": 127})

    def max_bytes(self, spec: SegmentSpec) -> int:
        if not spec.elements:
            return 0
        return 2 * spec.elements // spec.shape[step_axis(spec)] + spec.elements

    def encode(self, tensor: torch.Tensor, spec: SegmentSpec) -> bytes:
        check_tensor(tensor, spec)
        if not spec.elements:
            return b""
        numbers = tensor.detach().float()
        steps = rounded_up(numbers.abs().amax(step_axis(spec), keepdim=True) / 127)
        wide = steps.float()
        rounded = torch.where(wide > 0, numbers / wide, 0.0).round().clamp(-127, 127).to(torch.int8)
        return to_bytes(steps) + to_bytes(rounded)

    def decode(self, payload: bytes, spec: SegmentSpec, device: torch.device | str = "cpu") -> torch.Tensor:
        if len(payload) != self.max_bytes(spec):
            raise BadPayload(f"{len(payload)} bytes where {self.max_bytes(spec)} were due")
        if not spec.elements:
            return torch.empty(spec.shape, dtype=DTYPES[spec.dtype], device=device)
        axis = step_axis(spec)
        shape = [1 if i == axis else size for i, size in enumerate(spec.shape)]
        cut = len(payload) - spec.elements
        view = memoryview(payload)
        steps = checked(from_bytes(view[:cut], torch.bfloat16, shape, device))
        rounded = from_bytes(view[cut:], torch.int8, spec.shape, device)
        if bool((rounded < -127).any()):
            raise BadPayload("a number outside -127..127")
        return narrowed(rounded.float() * steps, spec)


def step_axis(spec: SegmentSpec) -> int:
    """The axis along which one step serves all numbers: a key's positions, else the channels."""
    return spec.position_axis if spec.kind is SegmentKind.KEY else len(spec.shape) - 1
