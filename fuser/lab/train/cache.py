"""The Sharer's features on disk, computed once: both models are frozen, so every epoch and every run reads the same.

A cache directory belongs to one Sharer, prompt style and way of reading attention, and is shared by all runs that
agree on them (`cache_folder`). It holds `features.f16` (rows, sharer numbers), standardised with
`statistics.safetensors` so that half precision loses nothing where a channel's mean is large beside its spread, and
`index.jsonl`, one line an item: the hash of its content, where its rows are, its text, and the attention rows; and the
Sharer's drafts, where it is kept with them.
`fuser.lab.train.cache_writer` fills it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fuser.heads.selection import Scorer, SelectionConfig
from fuser.lab.train.cached import Cached, CachedItem, CachedPrompt, from_row, moved
from fuser.lab.train.sources import AnyItem
from fuser.models.directory import cache_directory
from fuser.prompts.prompt import PromptStyle
from fuser.slice_specs import MAX_WRITTEN
from kvwire.identity import ModelRef

INDEX = "index.jsonl"
FEATURES = "features.f16"
STATISTICS = "statistics.safetensors"
ITEM_SIZE = 2  # bytes of a float16


class CacheIncomplete(RuntimeError):
    """Items that a run asks for are not in the cache."""


def cache_folder(
    sharer: ModelRef,
    style: PromptStyle,
    selection: SelectionConfig,
    root: str = "",
    dtype: str = "float32",
    scorer: Scorer | None = None,
    drafts: bool = False,
) -> Path:
    """The cache directory for what this Sharer reads so; `root` is beside the fetched models unless given.

    Args:
        drafts: whether the Sharer's short answer to each question is kept.
    """
    read: list[object] = [str(sharer), style.to_dict(), selection.first_layer, "asked"]
    if dtype != "float32":  # what the Sharer computed in
        read.append(dtype)
    if scorer is not None:
        read.append(scorer.digest())
    if drafts:
        read.append({"draft": MAX_WRITTEN})
    key = json.dumps(read, sort_keys=True)
    name = f"{sharer.name.rsplit('/', 1)[-1]}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    return (Path(root).expanduser() if root else cache_directory() / "training") / name


def item_key(item: AnyItem) -> str:
    """Hash of what is kept of an item; `source` is only its name."""
    from fuser.lab.data.document import Item

    content: list[object] = (
        [item.document, [[q.text, q.answers] for q in item.questions]]
        if isinstance(item, Item)
        else [item.text, item.response]
    )
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:32]


class FeatureCache:
    """A cache directory, opened for reading.

    Args:
        items: the items wanted, in the order wanted.

    Attributes:
        documents, prompts: the items. mean, scale: (sharer numbers,) float32, `(raw - mean) * scale` is stored.

    Raises:
        CacheIncomplete: the directory is not a filled cache, or some items are not in it.
    """

    def __init__(self, directory: Path, items: Sequence[AnyItem]) -> None:
        if not (directory / STATISTICS).exists():
            raise CacheIncomplete(f"the cache {directory} is empty")
        self.mean, self.scale = read_statistics(directory)
        index = read_index(directory, len(self.mean))
        shape = index.rows, len(self.mean)
        self._features = np.memmap(directory / FEATURES, np.float16, "r", shape=shape) if index.rows else None
        kept = _picked(index.items, items, directory)
        self.documents = [item for item in kept if isinstance(item, Cached)]
        self.prompts = [item for item in kept if isinstance(item, CachedPrompt)]

    def take(self, rows: Tensor) -> Tensor:
        """Standardised features of rows (...) int64 of the whole cache -> (..., sharer numbers) float32."""
        if self._features is None:
            return torch.zeros(*rows.shape, len(self.mean), device="cpu")
        read: Tensor = torch.from_numpy(np.asarray(self._features[rows.numpy()], dtype=np.float32))
        return read

    def gather(self, item: CachedItem, positions: Tensor) -> Tensor:
        """Standardised features of some of an item's rows, which are its positions first, float32."""
        return self.take(item.start + positions)

    def raw(self, item: CachedItem, positions: Tensor) -> Tensor:
        """Features of some of an item's rows, which are its positions first, as the Sharer gave them, float32."""
        features: Tensor = self.gather(item, positions) / self.scale + self.mean
        return features


@dataclass(frozen=True, slots=True)
class Index:
    """What is whole in a cache. items: by key, in order. rows: up to the last one's end. size: bytes of the index."""

    items: dict[str, CachedItem]
    rows: int
    size: int


def read_index(directory: Path, width: int) -> Index:
    """Read the index up to the first line that is torn or no item, or whose rows are not all there.

    Args:
        width: numbers of one row of features.
    """
    path, features = directory / INDEX, directory / FEATURES
    available = features.stat().st_size // (ITEM_SIZE * width) if features.exists() else 0
    items: dict[str, CachedItem] = {}
    rows = size = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        try:
            row = json.loads(line)
            key, item = row.pop("key"), from_row(row)
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError):
            break
        end = item.start + item.rows
        if not line.endswith(b"\n") or item.start < rows or end > available:
            break
        items[key] = item
        rows, size = end, size + len(line)
    return Index(items, rows, size)


def read_statistics(directory: Path) -> tuple[Tensor, Tensor]:
    """mean and scale, as in `FeatureCache`.

    Raises:
        ValueError: the file is damaged; without it the features mean nothing.
    """
    try:
        statistics = load_file(directory / STATISTICS)
        return statistics["mean"], statistics["scale"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(
            f"{directory / STATISTICS} is damaged ({error}): remove {directory} and cache again"
        ) from error


def _picked(found: dict[str, CachedItem], items: Iterable[AnyItem], directory: Path) -> list[CachedItem]:
    wanted = [(item, item_key(item)) for item in items]
    missing = sum(key not in found for _, key in wanted)
    if missing:
        raise CacheIncomplete(f"{missing} of {len(wanted)} items are not in the cache {directory}")
    return [moved(found[key], 0, item.source) for item, key in wanted]
