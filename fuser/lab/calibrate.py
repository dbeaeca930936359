"""Calibration: the bases of a bundle's codecs, fitted on what its training data looks like on the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from rich.progress import Progress
from torch.func import jacfwd

from fuser.bundle.bundle import Bundle
from fuser.bundle.config import CodecBases, CodecBasesConfig
from fuser.heads.compact import CompactFuse
from fuser.heads.translate import split_kv
from fuser.lab.data.document import Item
from fuser.lab.scatter import Scatter, allocate_bits
from fuser.lab.train.cache import FeatureCache
from fuser.lab.train.cached import Cached, CachedPrompt
from fuser.lab.train.config import TrainConfig
from fuser.lab.train.excerpt import Example, Excerpts, examples_of
from fuser.lab.train.prepare import open_cache, scorer_of
from fuser.models.directory import find_model, model_ref
from fuser.slice_specs import made_from, shared_segment, slice_specs
from kvwire.codec import Basis
from kvwire.codec.transform import Place, by_position
from kvwire.plan import Plan
from kvwire.segment import SegmentKind, SliceKind

_NARROWEST = 32
"""Leading numbers of a code that still have a basis of their own."""
_T = TypeVar("_T")


def calibrated(
    bundle: Bundle,
    cache: FeatureCache,
    documents: Sequence[Cached],
    prompts: Sequence[CachedPrompt],
    progress: Progress,
    *,
    positions: int,
    rates: Sequence[float],
    code_dims: Sequence[int] = (),
    seed: int = 1,
) -> Bundle:
    """The same heads with bases; those that the bundle had are replaced, of shared slices only where prompts are read.

    Args:
        documents: of the training split: what calibration has seen must not be measured on.
        prompts: likewise.
        positions: that are read, of shared slices and of codes.
        rates: bits per value, one codec each.
        code_dims: leading numbers of ordered codes that plans will ask for, and so get a basis of their own.
        seed: which items are read first.

    Raises:
        ValueError: too few positions, rates out of range, a bundle whose keys are not re-based, or bases that stay and
            have other rates.
    """
    generator = torch.Generator().manual_seed(seed)
    bases: dict[Place, Basis] = {}
    bits: dict[Place, list[float]] = {}
    if not prompts and bundle.codec_bases is not None:
        bases, bits = _kept(bundle.codec_bases, rates)
    with torch.no_grad():
        for group in (
            () if bases else _shared(bundle, cache, _shuffled(prompts, generator), positions, progress)
        ):
            bases |= group
            shares = [allocate_bits(list(group.values()), rate) for rate in rates]
            bits |= {place: list(column) for place, *column in zip(group, *shares, strict=True)}
        asked = _shuffled(examples_of(documents, 1), generator)
        codes = _codes(bundle, cache, asked, positions, code_dims, progress)
    bases |= codes
    bits |= {place: list(rates) for place in codes}
    kinds = sorted({kind for kind, _, _ in bases} - {SegmentKind.CODE})
    layers = {kind.value: tuple(sorted(layer for k, layer, _ in bases if k is kind)) for kind in kinds}
    widths = tuple(sorted(width for _, _, width in codes))
    found = bundle.with_codec_bases(CodecBasesConfig(tuple(rates), layers, widths))
    module = found.codec_bases
    assert module is not None
    module.write(bases, torch.tensor([bits[place] for place in module.places], device="cpu").T)
    return found


def _kept(module: CodecBases, rates: Sequence[float]) -> tuple[dict[Place, Basis], dict[Place, list[float]]]:
    """Bases and bits of the shared slices' segments, as they are."""
    shared = {i: place for i, place in enumerate(module.places) if place[0] is not SegmentKind.CODE}
    if shared and tuple(module.config.rates) != tuple(rates):
        raise ValueError(
            f"calibrate.rates: those of shared slices stay where no prompts are read: {list(module.config.rates)}"
        )
    bases = module.read()
    bits = {place: module.bits[:, i].tolist() for i, place in shared.items()}
    return {place: bases[place] for place in bits}, bits


def calibrated_for(bundle: Bundle, config: TrainConfig, progress: Progress) -> Bundle:
    """`calibrated` on the training split of a run whose cache is filled, as its table `calibrate` says.

    Raises:
        CacheIncomplete: not all of its items are cached.
        ValueError: the run's Sharer reads other than the bundle's does, or as in `calibrated`.
    """
    ours = bundle.config
    named = (
        ("sharer", ours.sharer, model_ref(find_model(config.sharer))),
        ("sharer_prompt", ours.sharer_prompt, config.sharer_prompt),
        ("selection", ours.selection, config.selection),
    )
    for name, wanted, found in named:
        if wanted != found:
            raise ValueError(
                f"{name}: the bundle has {wanted}, the run {found}; its cache is of something else"
            )
    fitted = scorer_of(config)
    if (
        bundle.scorer is not None
        and fitted is not None
        and not torch.equal(bundle.scorer.weight, fitted.weight)
    ):
        raise ValueError("the bundle: its fitted selection is another than the run's `scorer`; name its own")
    cache, sources = open_cache(config)
    count = sum(isinstance(item, Item) for item in sources.train)
    documents, prompts = cache.documents[:count], cache.prompts[: len(sources.train) - count]
    return calibrated(
        bundle,
        cache,
        documents,
        prompts,
        progress,
        positions=config.calibrate.positions,
        rates=config.calibrate.rates,
        code_dims=config.dials.code_dims,
        seed=config.seed,
    )


def _shared(
    bundle: Bundle, cache: FeatureCache, prompts: Sequence[CachedPrompt], positions: int, progress: Progress
) -> list[dict[Place, Basis]]:
    """Of the K and V that open gates read, and of the source halves, where the head can be parted."""
    head = bundle.fuse
    if head is None:
        return []
    if head.rotated_keys:
        raise ValueError("this bundle sends keys as they are rotated: components of them would mean nothing")
    groups: list[dict[Place, Scatter]] = []
    for bottleneck in (False, True) if isinstance(head, CompactFuse) else (False,):
        specs = slice_specs(bundle, SliceKind.SHARED, Plan(codec="raw", bottleneck=bottleneck), 1, "float32")
        places = [(spec.kind, spec.layer, spec.elements) for spec in specs]
        groups.append({place: Scatter.empty(place[2]) for place in places})

    def read(prompt: CachedPrompt) -> int:
        features = cache.raw(prompt, torch.arange(prompt.count, device="cpu")).to(
            next(head.parameters()).device
        )
        halves = split_kv(features, bundle.config.sharer_geometry)
        kv = dict(zip((SegmentKind.KEY, SegmentKind.VALUE), halves, strict=True))
        for group in groups:
            for (kind, layer, _), scatter in group.items():
                half, source = made_from(head, kind, layer)
                scatter.add(by_position(shared_segment(bundle, kind, layer, kv[half][source])))
        return prompt.count

    _until(positions, prompts, read, progress, "shared slices")
    return [{place: scatter.basis(place[2]) for place, scatter in group.items()} for group in groups]


def _codes(
    bundle: Bundle,
    cache: FeatureCache,
    examples: Sequence[Example],
    positions: int,
    code_dims: Sequence[int],
    progress: Progress,
) -> dict[Place, Basis]:
    """Of whole codes, of their leading halves, and of `code_dims`; those of excerpts, and of drafts that are cached."""
    head = bundle.translate
    if head is None:
        return {}
    excerpts, device = Excerpts(cache, bundle.config.selection, head), head.output_scale.device
    scatter = Scatter.empty(head.code_dim)

    def read(example: Example) -> int:
        features = torch.cat((excerpts.features([example])[0], excerpts.of_draft(*example)))
        codes = head.encode(features.to(device))
        scatter.add(codes)
        return len(codes)

    _until(positions, examples, read, progress, "codes")
    jacobian = jacfwd(head.in_units)(scatter.mean.float().to(device)).cpu().double()
    metric = jacobian.T @ jacobian
    halves = (head.code_dim >> by for by in range(1, 32))
    widths = {head.code_dim, *(dim for dim in halves if dim >= _NARROWEST)}
    widths |= {dim for dim in code_dims if dim < head.code_dim}
    return {
        (SegmentKind.CODE, -1, width): scatter.basis(width, metric[:width, :width])
        for width in sorted(widths)
    }


def _until(
    positions: int, items: Sequence[_T], read: Callable[[_T], int], progress: Progress, what: str
) -> None:
    """Read items until they have this many positions together, or all items."""
    task = progress.add_task(f"reading {what}", total=positions)
    done = 0
    for item in items:
        if done >= positions:
            break
        done += read(item)
        progress.update(task, completed=min(done, positions))
    progress.remove_task(task)


def _shuffled(items: Sequence[_T], generator: torch.Generator) -> list[_T]:
    return [items[i] for i in torch.randperm(len(items), generator=generator, device="cpu").tolist()]
