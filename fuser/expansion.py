"""From codes to Receiver KV: the half of a head that runs at the edge."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fuser.geometry import Geometry


class GroupedLinear(nn.Module):
    """Several linear maps without bias, one a group, in one matrix product.

    weight (groups, outputs, inputs) float32, initialised as `nn.Linear` does.
    """

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(groups, outputs, inputs).uniform_(-bound, bound))

    def forward(self, grouped: Tensor) -> Tensor:
        """(..., groups, inputs) -> (..., groups, outputs)."""
        return torch.einsum("...gi,goi->...go", grouped, self.weight)


class PerLayerWiden(GroupedLinear):
    """Each Receiver layer expands its own part of the code."""

    def forward(self, codes: Tensor) -> Tensor:
        """codes (..., code_dim) -> (..., receiver width), layer after layer."""
        groups, _, inputs = self.weight.shape
        return super().forward(codes.unflatten(-1, (groups, inputs))).flatten(-2)


class Expansion(nn.Module):
    """Codes to K and V of every Receiver layer, with an optional residual MLP and a learnt prefix. All float32.

    The output is standardised with statistics of the regression stage (buffers), so that a unit of error means the
    same in every channel.

    Args:
        code_dim: numbers in a code.
        hidden: width of the residual MLP that refines the code before it is expanded; 0 leaves it out.
        prefix_positions: learnt Receiver positions put before the slice.
        per_layer: one map per Receiver layer from its own part of the code, instead of one from all of it.
        receiver_positions: that each code is expanded to, one after the other; 1 with `per_layer`.

    Raises:
        ValueError: `per_layer` with a code that does not part into as many equal pieces as there are layers.
    """

    output_mean: Tensor
    output_scale: Tensor

    def __init__(
        self,
        code_dim: int,
        receiver: Geometry,
        *,
        hidden: int,
        prefix_positions: int,
        per_layer: bool = False,
        receiver_positions: int = 1,
    ) -> None:
        super().__init__()
        self.code_dim = code_dim
        self.prefix_positions = prefix_positions
        self.receiver_positions = receiver_positions
        self._width = receiver.width
        self.register_buffer("output_mean", torch.zeros(receiver_positions * receiver.width))
        self.register_buffer("output_scale", torch.ones(receiver_positions * receiver.width))
        self.widen: nn.Module
        if per_layer:
            if code_dim % receiver.layers:
                raise ValueError(
                    f"code_dim {code_dim} does not part into the Receiver's {receiver.layers} layers"
                )
            part = code_dim // receiver.layers
            self.widen = PerLayerWiden(receiver.layers, part, 2 * receiver.layer_width)
        else:
            self.widen = nn.Linear(code_dim, receiver_positions * receiver.width, bias=False)
        self.refines = hidden > 0
        if self.refines:
            self.hidden_in = nn.Linear(code_dim, hidden)
            self.hidden_out = nn.Linear(hidden, code_dim)
            nn.init.zeros_(self.hidden_out.weight)
            nn.init.zeros_(self.hidden_out.bias)
        if prefix_positions:
            self.prefix = nn.Parameter(torch.zeros(prefix_positions, receiver.width))

    def expand(self, codes: Tensor) -> Tensor:
        """codes (..., positions, code_dim) -> Receiver KV (..., positions * receiver_positions, receiver width).

        Keys are re-based.
        """
        flat = self._standardised(codes) * self.output_scale + self.output_mean
        each: Tensor = flat.unflatten(-1, (self.receiver_positions, self._width))
        return each.flatten(-3, -2)

    def in_units(self, codes: Tensor) -> Tensor:
        """What codes (..., code_dim) are expanded to, in units of its spread: (..., receiver_positions * width)."""
        return self._standardised(codes) + self.output_mean / self.output_scale

    def _standardised(self, codes: Tensor) -> Tensor:
        codes = codes.float()
        if self.refines:
            codes = codes + self.hidden_out(functional.gelu(self.hidden_in(codes)))
        flat: Tensor = self.widen(codes)
        return flat

    def start_prefix(self, flat: Tensor) -> None:
        """Write the learnt prefix, if there is one, from Receiver KV as `prefix_kv` gives it."""
        if self.prefix_positions:
            with torch.no_grad():
                self.prefix.copy_((flat - self.output_mean[: self._width]) / self.output_scale[: self._width])

    def prefix_kv(self) -> Tensor:
        """The learnt prefix as Receiver KV: (prefix_positions, receiver width), keys re-based."""
        if not self.prefix_positions:
            return self.output_mean.new_zeros(0, self._width)
        return self.prefix * self.output_scale[: self._width] + self.output_mean[: self._width]
