"""The setting that tasks are made from: a frozen Receiver, a cache, the heads to train, and the two splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from fuser.bundle.bundle import Bundle, BundleConfig
from fuser.lab.train.cache import FeatureCache
from fuser.lab.train.cached import Cached, CachedPrompt
from fuser.lab.train.config import TrainConfig
from fuser.lab.train.reading import FrozenReceiver
from fuser.receiver import Receiver
from kvwire.codec import CodecRegistry


@dataclass(frozen=True, slots=True)
class Split:
    """One side of the data: documents with questions, and shared prompts with responses."""

    documents: tuple[Cached, ...] = ()
    prompts: tuple[CachedPrompt, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """See the module.

    heads: `fuse`, `translate`, as the run's config asks, and a fitted `scorer`; on `device`, in single
        precision.
    device: where Receiver and heads are; the cache is read on the CPU.
    end: the Receiver's end-of-answer token.
    started: heads that have their first values already.
    codecs: that codes may go through in training: the built-in ones and those of the bundle in `init`.
    """

    config: TrainConfig
    bundle: BundleConfig
    heads: Mapping[str, nn.Module]
    reading: FrozenReceiver
    cache: FeatureCache
    train: Split
    validation: Split
    device: torch.device
    end: int
    started: frozenset[str] = frozenset()
    codecs: CodecRegistry = field(default_factory=CodecRegistry)

    def receiver(self) -> Receiver:
        """The Receiver of the service with the heads that are trained."""
        bundle = Bundle(self.bundle, **self.heads)  # type: ignore[arg-type]
        return Receiver(self.reading.model, self.reading.tokenizer, bundle)
