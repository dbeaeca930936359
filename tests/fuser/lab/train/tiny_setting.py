"""A training setting for the tiny pair: real readings of both models, features kept in memory unrounded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fuser.bundle.bundle import BundleConfig
from fuser.config import from_dict
from fuser.kv.geometry import Geometry
from fuser.lab.train.cache import FeatureCache
from fuser.lab.train.cached import Cached, CachedPrompt, moved
from fuser.lab.train.config import TrainConfig
from fuser.lab.train.prepare import scorer_of
from fuser.lab.train.reading import FrozenReceiver
from fuser.lab.train.sharer_reading import SharerReading
from fuser.lab.train.sources import AnyItem, TrainPrompt
from fuser.lab.train.task import Setting, Split
from fuser.models.directory import model_ref
from fuser.models.load import load_model
from ops.chaos.tiny_bundle import RECEIVER_PROMPT, SHARER_PROMPT

PROMPTS = (
    TrainPrompt("prompts", "Who keeps the key?", "Ilse"),
    TrainPrompt("prompts", "What is 12 + 345?\nAnswer with digits only.", "357"),
    TrainPrompt("prompts", "谁有钥匙？ ✅", "在河边"),
    TrainPrompt(
        "prompts", "Where is the ledger, and why does the bell ring twice before the tide is written?", "On"
    ),
    TrainPrompt("prompts", "x", "The correct answer is B."),
    TrainPrompt("prompts", "Name the café on Šárka Street.", "Müller's café"),
)


@dataclass
class MemoryCache(FeatureCache):
    """A cache whose rows are in memory and in single precision."""

    mean: torch.Tensor
    scale: torch.Tensor
    features: torch.Tensor
    documents: list[Cached]
    prompts: list[CachedPrompt]

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        return (self.features[rows] - self.mean) * self.scale


def read_all(reading: SharerReading, items: Sequence[AnyItem]) -> MemoryCache:
    """Read every item with the Sharer."""
    parts, kept, start = [], [], 0
    for item in items:
        rows, cached = reading.read_item(item)
        parts.append(rows)
        kept.append(moved(cached, start, item.source))
        start += len(rows)
    features = torch.cat(parts)
    return MemoryCache(
        features.mean(0),
        1 / features.std(0).clamp(min=1e-4),
        features,
        [item for item in kept if isinstance(item, Cached)],
        [item for item in kept if isinstance(item, CachedPrompt)],
    )


def tiny_setting(
    sharer: Path,
    receiver: Path,
    work: Path,
    items: Sequence[AnyItem],
    tables: Mapping[str, Any],
    **others: Any,
) -> Setting:
    """A setting whose last third of documents and of prompts validates.

    Args:
        tables: of the run's TOML: `translate`, `fuse` and so on.
        others: fields of the setting to replace.
    """
    config = from_dict(
        TrainConfig,
        {
            "sharer": str(sharer),
            "receiver": str(receiver),
            "sharer_prompt": SHARER_PROMPT,
            "receiver_prompt": RECEIVER_PROMPT,
            "sources": [{"source": "records:train", "documents": 1}],
            "work": str(work),
            "output": str(work / "bundle"),
            "selection": {"positions": 8},
            "regression_positions": 2000,
            **tables,
        },
    )
    their_model, their_tokenizer = load_model(sharer)
    scorer = scorer_of(config)
    reads = config.sharer_prompt, config.selection, scorer, config.drafts
    reader = SharerReading(their_model, their_tokenizer, *reads)
    cache = read_all(reader, items)
    model, tokenizer = load_model(receiver)
    reading = FrozenReceiver(model, tokenizer, config.receiver_prompt, config.lead)
    theirs, ours = Geometry.of(their_model.config), reading.geometry
    bundle = BundleConfig(
        sharer=model_ref(sharer),
        receiver=model_ref(receiver),
        sharer_geometry=theirs,
        receiver_geometry=ours,
        sharer_prompt=config.sharer_prompt,
        receiver_prompt=config.receiver_prompt,
        fuse=config.fuse_config(ours.layers, theirs.layers),
        translate=config.translate,
        selection=config.selection,
    )
    torch.manual_seed(5)
    made = {"translate": bundle.new_translate(), "fuse": bundle.new_fuse(), "scorer": scorer}
    heads = {name: head for name, head in made.items() if head is not None}
    third_documents, third_prompts = len(cache.documents) // 3, len(cache.prompts) // 3
    fields: dict[str, Any] = {
        "config": config,
        "bundle": bundle,
        "heads": heads,
        "reading": reading,
        "cache": cache,
        "train": Split(tuple(cache.documents[third_documents:]), tuple(cache.prompts[third_prompts:])),
        "validation": Split(tuple(cache.documents[:third_documents]), tuple(cache.prompts[:third_prompts])),
        "device": torch.device("cpu"),
        "end": tokenizer.eos_token_id,
    }
    return Setting(**fields | others)
