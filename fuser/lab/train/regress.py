"""The closed-form start of a translate head, from text alone, and how well it then explains.

Ridge regression of the Receiver's own re-based KV on the Sharer's features at aligned positions, cut to a rank:
reduced-rank regression (Izenman 1975), which of all maps of that rank fits best. Dense targets, no labels, no epochs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional

from fuser.heads.translate import TranslateHead
from fuser.kv.geometry import Geometry
from fuser.lab.train.cache import FeatureCache
from fuser.lab.train.cached import Cached
from fuser.lab.train.reading import FrozenReceiver


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
        return self.features / self.count

    @property
    def output_mean(self) -> Tensor:
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


def of_layers(features: Tensor, head: TranslateHead) -> Tensor:
    """Of features (..., numbers of all Sharer layers), those that a head reads."""
    return those_of(features, head.layers, len(head.input_mean) // len(head.layers))


def those_of(features: Tensor, layers: Sequence[int], per_layer: int) -> Tensor:
    """Of features (..., numbers of all Sharer layers), those of some layers."""
    if len(layers) * per_layer == features.shape[-1]:
        return features
    parts: Tensor = features.unflatten(-1, (-1, per_layer))
    return parts[..., list(layers), :].flatten(-2)


def standardise_as(cache: FeatureCache, head: TranslateHead) -> None:
    """Give a head the statistics that the cache is standardised with."""
    with torch.no_grad():
        head.input_mean.copy_(of_layers(cache.mean, head))
        head.input_scale.copy_(of_layers(cache.scale, head))


def gather_moments(
    head: TranslateHead,
    cache: FeatureCache,
    documents: Sequence[Cached],
    reading: FrozenReceiver,
    count: int,
    progress: Progress,
) -> Moments:
    """Sum over documents, in an order of chance, until `count` positions are in the sums, or all there are.

    Args:
        head: says which features are read and standardises them.

    Raises:
        ValueError: there is no document.
    """
    if not documents:
        raise ValueError("the regression needs training documents; add a source of them")
    moments = Moments.empty(len(head.input_mean), len(head.output_mean), head.input_mean.device)
    task = progress.add_task("reading for the regression", total=min(count, sum(d.count for d in documents)))
    for document in random.Random(0).sample(list(documents), len(documents)):
        raw = of_layers(cache.raw(document, torch.arange(document.count, device=document.spans.device)), head)
        targets = reading.document_kv(document.text, document.spans, head.receiver_positions)
        moments.add(head.standardise(raw.to(head.input_mean.device)), targets.to(head.input_mean.device))
        progress.advance(task, document.count)
        if moments.count >= count:
            break
    return moments


def explained_variance(
    head: TranslateHead, cache: FeatureCache, documents: Sequence[Cached], reading: FrozenReceiver
) -> tuple[float, float]:
    """Share of the variance of K and of V explained on documents, mean over Receiver layers.

    Raises:
        ValueError: there is no document.
    """
    if not documents:
        raise ValueError("explained variance needs held-out documents; add a source with validation = true")
    targets: list[Tensor] = []
    guesses: list[Tensor] = []
    with torch.no_grad():
        for document in documents:
            raw = of_layers(
                cache.raw(document, torch.arange(document.count, device=document.spans.device)), head
            )
            guesses.append(head.expand(head.encode(raw.to(head.input_mean.device))).cpu())
            found = reading.document_kv(document.text, document.spans, head.receiver_positions)
            targets.append(found.reshape(-1, reading.geometry.width).cpu())
    guess, target = torch.cat(guesses), torch.cat(targets)
    error = (target - guess).square().sum(0)
    total = (target - target.mean(0)).square().sum(0)
    shape = (reading.geometry.layers, 2, reading.geometry.layer_width)
    explained = 1 - error.reshape(shape).sum(2) / total.reshape(shape).sum(2)
    key, value = explained.mean(0).tolist()
    return key, value


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
