"""Ridge regression in closed form, cut to a rank: the best linear map through a bottleneck.

Reduced-rank regression (Izenman 1975): among all maps of that rank, the one that fits best under the training
covariance. Dense targets, no labels, no epochs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from fuser.heads.translate import TranslateHead
from fuser.kv.geometry import Geometry


@dataclass
class Moments:
    """Sums over positions of features x (features,) and targets y (outputs,), all float32.

    gram: sum of x x^T, (features, features). cross: sum of x y^T, (features, outputs). features: sum of x. outputs: sum
    of y. squares: sum of y^2.
    """

    count: int
    gram: Tensor
    cross: Tensor
    features: Tensor
    outputs: Tensor
    squares: Tensor

    @classmethod
    def empty(cls, features: int, outputs: int, device: torch.device | str = "cpu") -> Self:
        """Of no position yet."""
        none = torch.zeros(0, dtype=torch.float32, device=device)
        gram, cross = none.new_zeros(features, features), none.new_zeros(features, outputs)
        return cls(0, gram, cross, none.new_zeros(features), none.new_zeros(outputs), none.new_zeros(outputs))

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Take in rows (positions, features) and (positions, outputs), float32."""
        self.count += len(features)
        self.gram.addmm_(features.T, features)
        self.cross.addmm_(features.T, targets)
        self.features += features.sum(0)
        self.outputs += targets.sum(0)
        self.squares += targets.square().sum(0)

    @property
    def feature_mean(self) -> Tensor:
        """(features,)."""
        return self.features / self.count

    @property
    def output_mean(self) -> Tensor:
        """(outputs,)."""
        return self.outputs / self.count

    def centred(self, receiver: Geometry) -> tuple[Tensor, Tensor, Tensor]:
        """Gram and cross moments around the means, targets in units of their spread; and that unit, (outputs,).

        One unit for K and one for V of each Receiver layer and position: channels keep their proportions within a half.
        """
        spread = (self.squares / self.count - self.output_mean.square()).clamp(min=0)
        blocks = spread.unflatten(0, (-1, receiver.layer_width)).mean(1)
        scale = blocks.sqrt().clamp(min=1e-6).repeat_interleave(receiver.layer_width)
        gram = self.gram - torch.outer(self.features, self.feature_mean)
        cross = (self.cross - torch.outer(self.features, self.output_mean)) / scale
        return gram, cross, scale


def reduced_rank(gram: Tensor, cross: Tensor, penalty: float, rank: int) -> tuple[Tensor, Tensor]:
    """Minimise the ridge loss over maps features -> rank -> outputs.

    Args:
        gram: (features, features), centred; cross: (features, outputs), centred.
        penalty: added to the gram's diagonal.
        rank: of the map; what it is over the features or the outputs stays zero.

    Returns:
        squeeze (features, rank) and widen (outputs, rank), whose columns are orthonormal.
    """
    values, vectors = torch.linalg.eigh(gram)
    values = values.clamp(min=0)
    weight = (vectors.mT @ cross) / (values + penalty)[..., None]
    fitted = weight * values.sqrt()[..., None]
    _, left = torch.linalg.eigh(fitted @ fitted.mT)  # ascending: the directions that fit best come last
    widen, _ = torch.linalg.qr(fitted.mT @ left[..., -rank:].flip(-1))
    squeeze = vectors @ (weight @ widen)
    missing = (0, rank - widen.shape[-1])
    return functional.pad(squeeze, missing), functional.pad(widen, missing)


def start_in_closed_form(head: TranslateHead, moments: Moments, receiver: Geometry, ridge: float) -> None:
    """Write the rank-limited ridge solution into the maps of a head, and centre.

    The numbers of a code come in the order of what they explain, so the first are worth most.

    Args:
        moments: sums over positions of standardised features (the layers of `head.layers`) and Receiver KV there.
        ridge: penalty per position, in units of a standardised feature's variance.
    """
    gram, cross, scale = moments.centred(receiver)
    squeeze, widen = reduced_rank(gram, cross, ridge * moments.count, head.code_dim)
    with torch.no_grad():
        head.squeeze.weight.copy_(squeeze.mT)
        head.widen.weight.copy_(widen)
        head.output_scale.copy_(scale)
        head.output_mean.copy_(moments.output_mean)
        # Codes are then 0 on average: a number that is not sent is best guessed as 0.
        head.input_mean += moments.feature_mean / head.input_scale
