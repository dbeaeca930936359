"""Stage 1: the sums for the closed-form start of a translate head, from text alone, and how well it then explains.

Ridge regression of the Receiver's own re-based KV on the Sharer's features at aligned positions (`fuser.ridge` solves
it). Dense targets, no labels.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch
from rich.progress import Progress
from torch import Tensor

from fuser.geometry import Geometry
from fuser.ridge import Moments
from fuser.summary import SummaryHead
from fuser.train.cache import FeatureCache
from fuser.train.cached import Cached
from fuser.train.reading import Reading
from fuser.translate import TranslateHead


def of_layers(features: Tensor, head: TranslateHead | SummaryHead) -> Tensor:
    """Of features (..., numbers of all Sharer layers), those that a head reads."""
    per_layer = len(head.input_mean) // len(head.layers)
    if len(head.input_mean) == features.shape[-1]:
        return features
    parts: Tensor = features.unflatten(-1, (-1, per_layer))
    return parts[..., list(head.layers), :].flatten(-2)


def standardise_as(cache: FeatureCache, head: TranslateHead) -> None:
    """Give a head the statistics that the cache is standardised with."""
    with torch.no_grad():
        head.input_mean.copy_(of_layers(cache.mean, head))
        head.input_scale.copy_(of_layers(cache.scale, head))


def gather_moments(
    head: TranslateHead,
    cache: FeatureCache,
    documents: Sequence[Cached],
    reading: Reading,
    counts: Sequence[int],
    progress: Progress,
) -> Iterator[Moments]:
    """Sum over documents, in an order of chance; yields the same sums each time so many positions more are in them.

    Args:
        head: says which features are read and standardises them.
        counts: positions, ascending. Where documents are fewer, the last sums are of all of them.

    Raises:
        ValueError: there is no document.
    """
    if not documents:
        raise ValueError("the regression needs training documents; add a source of them")
    with head.input_mean.device:
        moments = Moments.empty(len(head.input_mean), len(head.output_mean))
    available = sum(document.count for document in documents)
    wanted = [min(count, available) for count in counts]
    task = progress.add_task("reading for the regression", total=wanted[-1])
    for document in random.Random(0).sample(list(documents), len(documents)):
        raw = of_layers(cache.raw(document, torch.arange(document.count)), head)
        targets = reading.document_kv(document.text, document.spans, head.receiver_positions)
        moments.add(head.standardise(raw.to(head.input_mean.device)), targets.to(head.input_mean.device))
        progress.advance(task, document.count)
        reached = [count for count in wanted if moments.count >= count]
        if reached:
            yield moments
            wanted = wanted[len(reached) :]
        if not wanted:
            break


def explained_variance(
    head: TranslateHead, cache: FeatureCache, documents: Sequence[Cached], reading: Reading
) -> Tensor:
    """Share of variance explained on documents, (layers, 2) float32: K and V of every Receiver layer.

    Raises:
        ValueError: there is no document.
    """
    if not documents:
        raise ValueError("explained variance needs held-out documents; add a source with validation = true")
    targets: list[Tensor] = []
    guesses: list[Tensor] = []
    with torch.no_grad():
        for document in documents:
            raw = of_layers(cache.raw(document, torch.arange(document.count)), head)
            guesses.append(head.expand(head.encode(raw.to(head.input_mean.device))).cpu())
            found = reading.document_kv(document.text, document.spans, head.receiver_positions)
            targets.append(found.reshape(-1, reading.geometry.width).cpu())
    return share_explained(torch.cat(guesses), torch.cat(targets), reading.geometry)


def share_explained(guesses: Tensor, targets: Tensor, receiver: Geometry) -> Tensor:
    """Of Receiver KV (positions, width) each: the share of variance explained, (layers, 2) float32, K and V."""
    error = (targets - guesses).square().sum(0)
    total = (targets - targets.mean(0)).square().sum(0)
    shape = (receiver.layers, 2, receiver.layer_width)
    return 1 - error.reshape(shape).sum(2) / total.reshape(shape).sum(2)
