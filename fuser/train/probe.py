"""What a closed form can carry across: how much of the Receiver's KV is explained, by code, by text read, by layer.

Nothing is trained, so many shapes of a translate head are compared in the time of one regression. On held-out text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from fuser.ridge import Moments
from fuser.train.regress import gather_moments, of_layers, share_explained, standardise_as
from fuser.train.setting import Setting
from fuser.translate import TranslateConfig, TranslateHead

_HELD_OUT = 96  # documents, at most


@dataclass(frozen=True, slots=True)
class Probe:
    """One shape of head.

    positions: of text that the closed form is made from. maps, reach, code_dim: as in `TranslateConfig`.
    sharer_layer: the one layer that is read, or None for all. numbers: in its maps.
    key, value: share of variance explained, mean over Receiver layers. key_layers, value_layers: of each.
    """

    positions: int
    maps: str
    reach: int
    code_dim: int
    sharer_layer: int | None
    numbers: int
    key: float
    value: float
    key_layers: tuple[float, ...]
    value_layers: tuple[float, ...]


def probe(
    setting: Setting,
    positions: Sequence[int],
    code_dims: Sequence[int],
    reaches: Sequence[int],
    progress: Progress,
) -> dict[str, Any]:
    """Probe joint codes of every size, per-layer codes of every reach, and every Sharer layer by itself.

    Single layers, and the per-layer codes, are read from the most positions alone.

    Args:
        positions: of text. code_dims: of joint codes; per-layer codes have the largest that parts into the layers.
        reaches: of per-layer codes.

    Returns:
        `held_out_positions`, and `probes`: each a `Probe` as a dictionary.

    Raises:
        ValueError: no documents to read or to be judged on, or a number below 1 or above its bound.
    """
    if min((*positions, *code_dims, *reaches), default=0) < 1 or not positions or not code_dims:
        raise ValueError("a probe needs positions and code_dims, and all of its numbers start at 1")
    if max(reaches, default=1) > setting.bundle.sharer_geometry.layers:
        raise ValueError(f"reaches: the Sharer has {setting.bundle.sharer_geometry.layers} layers")
    if not setting.validation.documents:
        raise ValueError("a probe needs held-out documents; add a source with validation = true")
    prober = _Prober(setting)
    counts = sorted(set(positions))
    found: list[Probe] = []
    reading = gather_moments(
        prober.new(), setting.cache, setting.train.documents, setting.reading, counts, progress
    )
    total = len(counts) + len(reaches) + setting.bundle.sharer_geometry.layers
    task = progress.add_task("solving", total=total)
    moments: Moments | None = None
    for moments in reading:
        found += prober.joint(moments, sorted(set(code_dims)))
        progress.advance(task)
    assert moments is not None  # there are documents
    for one in prober.others(moments, max(code_dims), sorted(set(reaches))):
        found.append(one)
        progress.advance(task)
    return {"held_out_positions": len(prober.targets), "probes": [asdict(one) for one in found]}


class _Prober:
    """Heads of the setting's pair, started from moments and judged on its held-out documents.

    They expand a code to one Receiver position, also where the run's head has two.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        cache, documents = setting.cache, setting.validation.documents[:_HELD_OUT]
        self._features = torch.cat([cache.raw(d, torch.arange(d.count)) for d in documents])
        with torch.no_grad():
            read = [setting.reading.document_kv(d.text, d.spans).cpu() for d in documents]
        self.targets = torch.cat(read)

    def new(self, **shape: Any) -> TranslateHead:
        """An untrained head on the CPU, standardised as the cache is."""
        bundle = self._setting.bundle
        config = TranslateConfig(**{"code_dim": 1} | shape)
        head = TranslateHead(config, bundle.sharer_geometry, bundle.receiver_geometry)
        standardise_as(self._setting.cache, head)
        return head

    def joint(self, moments: Moments, code_dims: Sequence[int]) -> Iterator[Probe]:
        """Joint codes of all layers: one solution for the longest, whose first numbers are the shorter ones."""
        head = self._started(self.new(code_dim=code_dims[-1]), moments)
        with torch.no_grad():
            codes = head.encode(self._features)
            for dims in code_dims:
                kept = codes.clone()
                kept[:, dims:] = 0
                numbers = dims * (len(head.input_mean) + len(head.output_mean))
                yield self._judged(moments.count, head, head.expand(kept), dims, numbers)

    def others(self, moments: Moments, code_dim: int, reaches: Sequence[int]) -> Iterator[Probe]:
        """Codes of a part for each Receiver layer; and all that a single Sharer layer says."""
        theirs, ours = self._setting.bundle.sharer_geometry, self._setting.bundle.receiver_geometry
        parted = max(1, code_dim // ours.layers) * ours.layers
        for reach in reaches:
            head = self._started(self.new(code_dim=parted, maps="layer", reach=reach), moments)
            yield self._whole(moments.count, head)
        for layer in range(theirs.layers):
            head = self.new(code_dim=2 * theirs.layer_width, sharer_layers=(layer,))
            at = slice(layer * head.code_dim, (layer + 1) * head.code_dim)  # its K and V among all features
            yield self._whole(moments.count, self._started(head, _part(moments, at)), layer)

    def _started(self, head: TranslateHead, moments: Moments) -> TranslateHead:
        head.start(moments, self._setting.bundle.receiver_geometry, self._setting.config.ridge)
        return head

    def _whole(self, positions: int, head: TranslateHead, layer: int | None = None) -> Probe:
        numbers = sum(p.numel() for p in head.parameters())
        with torch.no_grad():
            guesses = head.expand(head.encode(of_layers(self._features, head)))
        return self._judged(positions, head, guesses, head.code_dim, numbers, layer)

    def _judged(
        self,
        positions: int,
        head: TranslateHead,
        guesses: Tensor,
        dims: int,
        numbers: int,
        layer: int | None = None,
    ) -> Probe:
        explained = share_explained(guesses, self.targets, self._setting.bundle.receiver_geometry)
        means = (round(x, 4) for x in explained.mean(0).tolist())
        layers = (tuple(round(x, 4) for x in half) for half in explained.T.tolist())
        return Probe(positions, head.config.maps, head.config.reach, dims, layer, numbers, *means, *layers)


def _part(moments: Moments, at: slice) -> Moments:
    """The sums as they would be of some of the features alone."""
    return Moments(
        moments.count,
        moments.gram[at, at],
        moments.cross[at],
        moments.features[at],
        moments.outputs,
        moments.squares,
    )
