"""K and V as fuse heads hold them: heads flattened into channels and back, and the shapes that are refused."""

from __future__ import annotations

from torch import Tensor

from fuser.geometry import Geometry
from fuser.layer_map import LayerMap

KEYS, VALUES = 0, 1  # the half axis


def flatten_heads(half: Tensor) -> Tensor:
    """(..., heads, positions, head_dim) -> (..., positions, heads * head_dim), heads outermost."""
    return half.transpose(-3, -2).flatten(-2)


def split_heads(flat: Tensor, heads: int) -> Tensor:
    """Inverse of `flatten_heads`."""
    parted: Tensor = flat.unflatten(-1, (heads, flat.shape[-1] // heads))
    return parted.transpose(-3, -2)


def check_half(name: str, half: Tensor, heads: int, head_dim: int, like: Tensor | None = None) -> None:
    """Refuse a K or V tensor that is not (batch, heads, positions, head_dim) of this side.

    Raises:
        ValueError: naming the tensor, what it is and what it should be.
    """
    fits = half.dim() == 4 and half.shape[1] == heads and half.shape[3] == head_dim
    if fits and like is not None:
        fits = half.shape[0] == like.shape[0] and half.shape[2] == like.shape[2]
    if not fits:
        batch, positions = ("batch", "positions") if like is None else (like.shape[0], like.shape[2])
        raise ValueError(
            f"{name} is {tuple(half.shape)}; expected ({batch}, {heads}, {positions}, {head_dim})"
        )


def check_layer_stack(
    name: str, stack: Tensor, layers: int, side: Geometry, like: Tensor | None = None
) -> None:
    """Refuse K or V of so many layers that is not (layers, batch, heads, positions, head_dim) of this side.

    `like` is the Receiver's stack, None for that stack itself.

    Raises:
        ValueError: naming the tensor, what it is and what it should be.
    """
    if stack.dim() != 5 or stack.shape[0] != layers:
        raise ValueError(f"{name} is {tuple(stack.shape)}; expected {layers} layers of K or V")
    check_half(name, stack[0], side.kv_heads, side.head_dim, None if like is None else like[0])


def check_layers(layer_map: LayerMap, sharer: Geometry, receiver: Geometry) -> None:
    """Refuse a layer map that was made for other models.

    Raises:
        ValueError: naming both layer counts.
    """
    for side, mapped, real in (
        ("Sharer", layer_map.sharer_layers, sharer.layers),
        ("Receiver", layer_map.receiver_layers, receiver.layers),
    ):
        if mapped != real:
            raise ValueError(f"the layer map is for a {side} of {mapped} layers; this one has {real}")
