"""A task: what a training run drives. It turns cached items into batches, and a batch into a loss.

The run owns steps, optimiser, schedule, checkpoints, workers and logs; a task owns what is read and what is asked, and
is made from a setting: a frozen Receiver, a cache, the heads to train, and the two splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, TypeVar

import torch
from rich.progress import Progress
from torch import nn

from fuser.bundle.bundle import Bundle, BundleConfig
from fuser.kv.generate import Outcome
from fuser.lab.train.cache import FeatureCache
from fuser.lab.train.cached import Cached, CachedPrompt
from fuser.lab.train.config import TrainConfig
from fuser.lab.train.reading import FrozenReceiver
from fuser.receiver import Receiver
from kvwire.codec import CodecRegistry

Control = Literal[
    "true",
    "mismatched",
    "alone",
    "text",
    "unanswerable",
    "recite",
    "draft",
    "mismatched_draft",
    "unanswerable_draft",
]
"""What the Receiver has before it answers: the slice; another item's slice; none; the document as text; another item's
slice, where the right reply is that there is no answer; or a window of the item, where the right reply is its text.
Those of drafts are the first, the second and the fifth with a draft slice."""


class TrainBatch(Protocol):
    """Examples of like length, still on the CPU. Only its task looks inside."""

    def __len__(self) -> int: ...
    def shard(self, rank: int, world: int) -> Self:
        """The part of worker `rank` of `world`: equal parts that together are the batch. `world` divides the length.

        Examples are paired for `mismatched` before the cut, so that the parts' losses average to the batch's.
        """
        ...


B = TypeVar("B", bound=TrainBatch)


class TrainTask(Protocol[B]):
    """See the module. Made from a `Setting`.

    name: of the task in logs and errors. controls: those that mean something here, "true" first; all of them are
    evaluated on the validation split.
    """

    name: str
    controls: tuple[Control, ...]

    def modules(self) -> Mapping[str, nn.Module]:
        """What is trained, by the bundle's names: `fuse`, `translate`."""
        ...

    def start(self, progress: Progress) -> Mapping[str, Any]:
        """Set the modules' first values, once, before step 0; returns plain JSON values worth logging."""
        ...

    def epoch(self, batch: int, seed: int) -> Sequence[B]:
        """Training examples in batches of exactly `batch` of like length, as many of them for every seed."""
        ...

    def validation(self, batch: int) -> Sequence[B]:
        """The validation examples, always the same; the last batch may be shorter."""
        ...

    def control_at(self, step: int) -> Control: ...

    def loss(self, batch: B, control: Control) -> Outcome:
        """Read the batch in one control, on the setting's device, differentiable in the modules.

        Noise and sampled gates belong to modules in training mode alone, and are drawn from torch's global generator,
        which the run seeds by its step: a resumed run draws what the unbroken one drew.

        Raises:
            ValueError: a control the task does not have.
        """
        ...


@dataclass(frozen=True, slots=True)
class Split:
    """One side of the data: documents with questions, and shared prompts with responses."""

    documents: tuple[Cached, ...] = ()
    prompts: tuple[CachedPrompt, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """What tasks are made from.

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
