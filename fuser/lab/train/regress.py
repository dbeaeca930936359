"""Stage 1: the sums for the closed-form start of a translate head, from text alone, and how well it then explains.

Ridge regression of the Receiver's own re-based KV on the Sharer's features at aligned positions (solved by
`fuser.lab.train.ridge`). Dense targets, no labels.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from rich.progress import Progress
from torch import Tensor

from fuser.heads.translate import TranslateHead
from fuser.lab.train.cache import FeatureCache
from fuser.lab.train.cached import Cached
from fuser.lab.train.reading import FrozenReceiver
from fuser.lab.train.ridge import Moments


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
