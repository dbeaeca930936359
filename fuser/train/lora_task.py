"""The LoRA baseline's tasks: the same items in the same batches as the Fuser's, and no slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from rich.progress import Progress
from torch import nn
from transformers import DynamicCache

from fuser.prompt import tokenise
from fuser.train.answer import Row, on_top, padded
from fuser.train.batch import ExampleBatch, Examples, spread
from fuser.train.cached import CachedPrompt
from fuser.train.excerpt import Example, examples_of
from fuser.train.setting import Setting, Split
from fuser.train.task import Control, Outcome


class LoraTask:
    """A `fuser.train.task.Task` that trains the adapters in the Receiver.

    Args:
        name: "document", questions whose document is withheld (or read as text, with `lora.text`); or "shared".
    """

    controls: tuple[Control, ...] = ("true",)

    def __init__(self, setting: Setting, name: Literal["document", "shared"]) -> None:
        if "lora" not in setting.heads:
            raise ValueError("the LoRA tasks train adapters: give [lora]")
        self.name: str = name
        self._setting = setting
        self._reading = setting.reading
        self._train = Examples(self._found(setting.train), _length, _subject, f"{name} task, training")
        held = spread(self._found(setting.validation), setting.config.answer.validation)
        self._validation = Examples(held, _length, _subject, f"{name} task, validation")

    def modules(self) -> Mapping[str, nn.Module]:
        """As in `Task`."""
        return {"lora": self._setting.heads["lora"]}

    def start(self, progress: Progress) -> Mapping[str, Any]:
        """Nothing to do: an adapter starts as an identity."""
        return {}

    def epoch(self, batch: int, seed: int) -> list[ExampleBatch[Example | CachedPrompt]]:
        """As in `Task`."""
        return self._train.shuffled(batch, seed)

    def validation(self, batch: int) -> list[ExampleBatch[Example | CachedPrompt]]:
        """As in `Task`."""
        return self._validation.sorted(batch)

    def control_at(self, step: int) -> Control:
        """There is one way to read."""
        return "true"

    def loss(self, batch: ExampleBatch[Example | CachedPrompt], control: Control) -> Outcome:
        """As in `Task`. The whole prompt is run: adapters change what the head of the prompt becomes, too."""
        if control != "true":
            raise ValueError(f"a LoRA has no control {control}: it is given no slice")
        ids, wanted = padded([self._row(example) for example in batch.own], self._setting.end)
        return on_top(self._reading, DynamicCache(), torch.zeros(len(batch), dtype=torch.int64), ids, wanted)

    def _row(self, example: Example | CachedPrompt) -> Row:
        reading, end = self._reading, self._setting.end
        if isinstance(example, CachedPrompt):
            return reading.response(example.text, example.response, end)
        document, question = example
        ids, first = reading.question(question.text, question.answers[0], end)
        lora = self._setting.config.lora
        parts = [reading.head]
        if lora is not None and lora.text:
            parts.append(tokenise(reading.tokenizer, document.text).ids)
        return torch.cat((*parts, ids)), sum(len(part) for part in parts) + first

    def _found(self, split: Split) -> Sequence[Example | CachedPrompt]:
        if self.name == "shared":
            return split.prompts
        config = self._setting.config
        return examples_of(split.documents, min(config.dials.positions, default=config.selection.positions))


def _length(example: Example | CachedPrompt) -> int:
    if isinstance(example, CachedPrompt):
        return len(example.text) + len(example.response)
    return len(example[1].text) + len(example[1].answers[0])


def _subject(example: Example | CachedPrompt) -> str:
    return example.text if isinstance(example, CachedPrompt) else example[0].text
