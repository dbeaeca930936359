"""Whether documents hold the answer to a question, as the Sharer's upper layers tell it where the prompt ends."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fuser.atomic import atomic_write
from fuser.bundle.tensors import BadBundle
from fuser.kv.geometry import Geometry


class Answerable(nn.Module):
    """A logistic regression on K, re-based, and V of some Sharer layers at a prompt's last position.

    It needs no pass of its own: the position is read anyway, and what leaves is one number. The cloud alone has it, in
    a file of its own beside the bundle's tensors and in no hash: nothing that is fused depends on it.

    Args:
        layers: of the Sharer, ascending. width: numbers of one, `2 * layer width`.
    """

    layers: Tensor

    def __init__(self, layers: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.register_buffer("layers", torch.tensor(layers, dtype=torch.int64))
        self.weight = nn.Parameter(torch.zeros(len(layers) * width))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Log-odds in nats, (...), of features (..., layers * 2 * layer width) as `Reading.features` gives them."""
        odds: Tensor = features.float() @ self.weight + self.bias
        return odds

    def save(self, path: Path) -> None:
        """Write it as safetensors."""
        with atomic_write(path) as partial:
            save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, partial)

    @classmethod
    def load(cls, path: Path, sharer: Geometry) -> Answerable:
        """Read what `save` wrote.

        Raises:
            BadBundle: it is another thing, or for a Sharer of another geometry.
        """
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                if set(file.keys()) != {"layers", "weight", "bias"}:
                    raise BadBundle(f"{path}: expected the tensors layers, weight and bias")
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
                (count,) = shapes["layers"] if len(shapes["layers"]) == 1 else (0,)
                width = 2 * sharer.layer_width
                if not 0 < count <= sharer.layers or shapes["weight"] != (count * width,) or shapes["bias"]:
                    raise BadBundle(f"{path}: shapes {shapes} do not fit a Sharer of {sharer}")
                stored = {name: file.get_tensor(name) for name in shapes}
        except (OSError, SafetensorError) as error:
            raise BadBundle(f"{path}: {error}") from error
        layers = tuple(stored["layers"].tolist())
        ascending = list(layers) == sorted(set(layers)) and layers[0] >= 0 and layers[-1] < sharer.layers
        numbers = stored["weight"].dtype == stored["bias"].dtype == torch.float32
        if (
            not ascending
            or not numbers
            or not all(bool(stored[n].isfinite().all()) for n in ("weight", "bias"))
        ):
            raise BadBundle(
                f"{path}: layers are not ascending within the Sharer's, or numbers are not finite float32"
            )
        head = cls(layers, width)
        head.load_state_dict(stored)
        return head.eval().requires_grad_(False)
