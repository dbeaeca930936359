"""The shared task: the paper's setting, two models and one prompt (arXiv 2510.03215, section 3.3).

Both sides read the same text. The Receiver's own KV of the prompt, all positions but the last, is fused with the
Sharer's cached KV, and the response is scored on top of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn

from fuser.heads.compact import CompactFuse
from fuser.heads.fuse import flatten_heads
from fuser.kv.generate import Outcome
from fuser.lab.train.batch import ExampleBatch, Examples, evenly_spaced, sample_one
from fuser.lab.train.cached import CachedPrompt
from fuser.lab.train.fusing import CachedSlices, GivenKv
from fuser.lab.train.reading import replies_to
from fuser.lab.train.task import Control, Setting
from fuser.receiver import Prefilled
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind

_STATISTICS_PROMPTS = 64  # prompts that standardise both sides


class SharedTask:
    """A `fuser.lab.train.task.TrainTask` that trains the fuse head on shared prompts and their responses."""

    name = "shared"
    controls: tuple[Control, ...] = ("true", "mismatched", "alone")

    def __init__(self, setting: Setting) -> None:
        head = setting.heads.get("fuse")
        if not isinstance(head, CompactFuse):
            raise ValueError("the shared task trains a fuse head: give [fuse]")
        self._setting = setting
        self._head = head
        self.receiver = setting.receiver()
        self.slices = CachedSlices(head, setting.cache, setting.bundle.sharer_geometry)
        held = evenly_spaced(setting.validation.prompts, setting.config.answer.validation)
        self._train = _examples(setting.train.prompts, "training")
        self._validation = _examples(held, "validation")

    def modules(self) -> Mapping[str, nn.Module]:
        return {"fuse": self._head}

    @torch.no_grad()
    def start(self, progress: Progress) -> Mapping[str, Any]:
        """Standardise both sides of the head with the statistics of some training prompts."""
        if "fuse" in self._setting.started:
            return {}
        sums: list[Tensor] = []
        prompts = evenly_spaced(self._train.items, _STATISTICS_PROMPTS)
        task = progress.add_task("statistics of shared prompts", total=len(prompts))
        for prompt in prompts:
            given, layers = [GivenKv(prompt, matched=True)], range(self._head.receiver.layers)
            fusing = self.slices.fusing(self.read([prompt]), given)
            source = torch.stack(self.slices.feeding(fusing, given, layers), 1)[:, :, 0].double()
            target = torch.stack(fusing.own(layers), 1)[:, :, 0].double()
            part = torch.cat(
                [flatten_heads(half) for half in (source, target)], dim=-1
            )  # layers, 2, positions, both
            sums = _added(sums, part)
            progress.advance(task)
        count, total, squares = sums
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        width = self._setting.bundle.sharer_geometry.layer_width
        both = mean.float(), deviation.float()
        self._head.standardise(
            (both[0][..., :width], both[1][..., :width]), (both[0][..., width:], both[1][..., width:])
        )
        return {"statistics_positions": int(count)}

    def epoch(self, batch: int, seed: int) -> list[ExampleBatch[CachedPrompt]]:
        return self._train.shuffled(batch, seed)

    def validation(self, batch: int) -> list[ExampleBatch[CachedPrompt]]:
        return self._validation.sorted(batch)

    def control_at(self, step: int) -> Control:
        """Always the slice: there is nothing else to learn from."""
        return "true"

    def loss(self, batch: ExampleBatch[CachedPrompt], control: Control) -> Outcome:
        """As in `Task`; alone is with every gate closed. In training as one of the plans would send the slices."""
        if control not in self.controls:
            raise ValueError(f"the shared task has no control {control}; it has {', '.join(self.controls)}")
        slices = batch.other if control == "mismatched" else batch.own
        given = [GivenKv(one, matched=one is prompt) for prompt, one in zip(batch.own, slices, strict=True)]
        last = sample_one(self._setting.config.dials.last, 0) if self._head.training else 0
        prefilled = self.read(batch.own)
        if control != "alone":
            self.slices.fuse(prefilled, given, last)
        rendered, responses = [p.rendered for p in prefilled.prompts], [p.response for p in batch.own]
        return prefilled.loss(replies_to(self.receiver.tokenizer, rendered, responses, self._setting.end))

    def read(self, prompts: Sequence[CachedPrompt]) -> Prefilled:
        """What the Receiver itself reads of some prompts, all but their last tokens."""
        sections = [(Section(Role.QUESTION, Visibility.SHARED, text=prompt.text),) for prompt in prompts]
        return self.receiver.begin(*sections).prefill(SliceKind.SHARED)


def _added(sums: list[Tensor], part: Tensor) -> list[Tensor]:
    """Count, sum and sum of squares over positions of (..., positions, channels)."""
    new = [part.new_tensor(part.shape[-2]), part.sum(-2), part.square().sum(-2)]
    return [a + b for a, b in zip(sums, new, strict=True)] if sums else new


def _examples(prompts: Sequence[CachedPrompt], split: str) -> Examples[CachedPrompt]:
    return Examples(
        prompts, lambda p: len(p.text) + len(p.response), lambda p: p.text, f"shared task, {split}"
    )
