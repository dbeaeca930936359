"""The fuse head: merges the Sharer's KV into the Receiver's where both models have the position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fuser.kv.geometry import Geometry, LayerMap
from kvwire.segment import SegmentKind

KEYS, VALUES = 0, 1  # the half axis


def flatten_heads(half: Tensor) -> Tensor:
    """(..., heads, positions, head_dim) -> (..., positions, heads * head_dim), heads outermost."""
    return half.transpose(-3, -2).flatten(-2)


def split_heads(flat: Tensor, heads: int) -> Tensor:
    """Inverse of `flatten_heads`."""
    parted: Tensor = flat.unflatten(-1, (heads, flat.shape[-1] // heads))
    return parted.transpose(-3, -2)


def check_stack(name: str, stack: Tensor, layers: int, side: Geometry, like: Tensor | None = None) -> None:
    """Refuse K or V of several layers that is not (layers, batch, heads, positions, head_dim) of this side.

    `like` is the Receiver's stack, None for that stack itself.

    Raises:
        ValueError: naming the tensor, what it is and what it should be.
    """
    if stack.dim() != 5 or stack.shape[0] != layers:
        raise ValueError(f"{name} is {tuple(stack.shape)}; expected {layers} layers of K or V")
    _, batch, _, positions, _ = (stack if like is None else like).shape
    if stack.shape[1:] != (batch, side.kv_heads, positions, side.head_dim):
        wanted = f"({batch}, {side.kv_heads}, {positions}, {side.head_dim})"
        raise ValueError(f"{name} is {tuple(stack.shape[1:])}; expected {wanted}")


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


class FuseHead(nn.Module, ABC):
    """What every fuse head offers, whatever its architecture; a member says what changes, this class applies it.

    Per Receiver layer and per half (K, V): `out = receiver + gate * weights * projection(sharer, receiver)`.
    In evaluation mode a gate is open or closed, and a closed one is an exact identity that computes nothing;
    a head that is trained samples it in training mode, so every mapped layer takes part.

    Keys are re-based (carry no position) on both sides unless `rotated_keys`.
    """

    def __init__(self, layer_map: LayerMap, rotated_keys: bool, sharer: Geometry, receiver: Geometry) -> None:
        super().__init__()
        check_layers(layer_map, sharer, receiver)
        self.layer_map, self.rotated_keys = layer_map, rotated_keys
        self.sharer, self.receiver = sharer, receiver
        self.fed = tuple(layer for layer, _ in layer_map.mapped)  # Receiver layers, lowest first
        self.row = {layer: row for row, layer in enumerate(self.fed)}

    @abstractmethod
    def gate_logits(self, layer: int) -> Tensor:
        """Logits of key gate and value gate of a fed Receiver layer, (2,) float32, detached; open above 0."""

    @abstractmethod
    def changes(self, layers: Sequence[int], halves: range, sharer: Tensor, receiver: Tensor) -> Tensor:
        """What the gates of some layers let through, all layers in one batched matmul a stage.

        Args:
            layers: fed Receiver layers.
            halves: range(0, 1) for K, range(1, 2) for V, range(2) for both.
            sharer: (halves, layers, batch, sharer kv heads, positions, sharer head_dim).
            receiver: (halves, layers, batch, receiver kv heads, positions, receiver head_dim).

        Returns:
            What is added to `receiver`, of its shape, in the dtype of the weights; exactly 0 where a gate is
            closed.
        """

    def open_halves(self, layer: int) -> tuple[bool, bool]:
        """Whether key gate and value gate of a fed Receiver layer are open, as evaluation mode sees it."""
        key, value = (self.gate_logits(layer) > 0).tolist()
        return key, value

    def open_layers(self) -> list[tuple[bool, bool]]:
        """Per Receiver layer, whether key gate and value gate are open; both False where nothing feeds it.

        As evaluation mode sees it, in training mode too.
        """
        layers = range(self.receiver.layers)
        return [self.open_halves(layer) if layer in self.row else (False, False) for layer in layers]

    def needed(self) -> list[tuple[SegmentKind, int]]:
        """Segments (K or V, Sharer layer) that open gates read: each once, lowest layer first, K before V."""
        wanted: set[tuple[int, bool]] = set()
        for reads, source in zip(self.open_layers(), self.layer_map.sources, strict=True):
            if source is not None:
                wanted |= {(source, bool(half)) for half in (KEYS, VALUES) if reads[half]}
        return [(SegmentKind.VALUE if value else SegmentKind.KEY, source) for source, value in sorted(wanted)]

    def live(self, layer: int) -> tuple[bool, bool]:
        """Whether fusing changes K and V of a Receiver layer; in training both of every fed one."""
        if layer not in self.row:
            return False, False
        return (True, True) if self.training else self.open_halves(layer)

    def fuse(
        self,
        layers: Sequence[int],
        sharer_keys: Tensor | None,
        sharer_values: Tensor | None,
        receiver_keys: Tensor,
        receiver_values: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """K and V of some Receiver layers after fusing, each of the Receiver's shape and dtype.

        Args:
            layers: Receiver layers.
            sharer_keys: (layers, batch, sharer kv heads, positions, sharer head_dim): for each Receiver layer the K of
                the Sharer layer that feeds it, already gathered to the Receiver's positions; anything where nothing
                does. None where no segment came: that half stays the Receiver's own.
            sharer_values: the same for V.
            receiver_keys: (layers, batch, receiver kv heads, positions, receiver head_dim).
            receiver_values: the same for V.

        Raises:
            ValueError: a shape that does not fit the pair.
        """
        given, fused = (sharer_keys, sharer_values), [receiver_keys, receiver_values]
        for mine, sent in zip(fused, given, strict=True):
            check_stack("receiver", mine, len(layers), self.receiver)
            if sent is not None:
                check_stack("sharer", sent, len(layers), self.sharer, like=mine)
        alike: dict[tuple[int, ...], list[int]] = {}  # places of the layers whose same halves change
        for place, layer in enumerate(layers):
            gates = self.live(layer)
            halves = tuple(half for half in (KEYS, VALUES) if given[half] is not None and gates[half])
            if halves:
                alike.setdefault(halves, []).append(place)
        for halves, places in alike.items():
            every = len(places) == len(layers)
            at = torch.tensor(places, device=receiver_keys.device)
            theirs = [one if every else one[at] for half in halves if (one := given[half]) is not None]
            target = torch.stack([fused[half] if every else fused[half][at] for half in halves])
            span = range(halves[0], halves[-1] + 1)
            change = self.changes([layers[place] for place in places], span, torch.stack(theirs), target)
            for half, new in zip(halves, (target + change).to(target.dtype), strict=True):
                fused[half] = new if every else fused[half].index_copy(0, at, new)
        return fused[KEYS], fused[VALUES]

    def fuse_layer(
        self,
        layer: int,
        sharer_keys: Tensor | None,
        sharer_values: Tensor | None,
        receiver_keys: Tensor,
        receiver_values: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """As `fuse`, of one layer: tensors without the first dimension. What nothing changes comes back as it is."""
        theirs_k, theirs_v = (None if half is None else half[None] for half in (sharer_keys, sharer_values))
        ours = receiver_keys[None], receiver_values[None]
        keys, values = self.fuse([layer], theirs_k, theirs_v, *ours)
        return (
            receiver_keys if keys is ours[KEYS] else keys[0],
            receiver_values if values is ours[VALUES] else values[0],
        )

    @property
    def parameter_count(self) -> int:
        """Trainable numbers, all layers together."""
        return sum(parameter.numel() for parameter in self.parameters())
