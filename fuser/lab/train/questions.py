"""Questions over cloud documents: what the tasks that put extra positions before a question have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from rich.progress import Progress
from torch import Tensor, nn

from fuser.heads.translate import TranslateHead
from fuser.kv.generate import Outcome
from fuser.lab.train.batch import ExampleBatch, Examples, evenly_spaced
from fuser.lab.train.excerpt import Example, examples_of
from fuser.lab.train.reading import replies_to
from fuser.lab.train.setting import Setting
from fuser.lab.train.task import Control
from fuser.prompts.prompt import tokenise, withheld
from kvwire.segment import SliceKind

Posed = tuple[str, str]
"""A question and its right reply."""


class QuestionTask(ABC):
    """A `fuser.lab.train.task.TrainTask` over the cached documents of a setting; a subclass says what the slice is.

    The learnt prefix of the head, if it has one, stands before whatever else is read, in every control.

    Args:
        head: that the slice comes from, with its prefix.
        shortest: positions of a document below which it is left out.

    Attributes:
        questions, left_out: training questions, and those over documents that are too short.
    """

    name: str

    def __init__(self, setting: Setting, head: TranslateHead, shortest: int) -> None:
        self.setting = setting
        self._shares = self.shares(len(head.prefix_kv()) > 0)
        own: tuple[Control, ...] = ("true", "mismatched", "alone", "text")
        self.controls = (*own, *(name for name, share in self._shares.items() if share and name not in own))
        self.receiver = setting.receiver()
        held = examples_of(setting.validation.documents, shortest)
        self._train = self._together(examples_of(setting.train.documents, shortest), "training")
        self.questions = len(self._train)
        self.left_out = sum(len(d.questions) for d in setting.train.documents) - self.questions
        if self.left_out and not self.questions:
            raise ValueError(
                f"the {self.name} task has no training document of {shortest} positions, as many as a slice has"
            )
        if not held and any(d.questions for d in setting.validation.documents):
            raise ValueError(
                f"the {self.name} task has no validation document of {shortest} positions, as many as a slice has"
            )
        self._validation = self._together(evenly_spaced(held, setting.config.answer.validation), "validation")

    @abstractmethod
    def modules(self) -> Mapping[str, nn.Module]:
        """What is trained, by the bundle's names."""

    @abstractmethod
    def start(self, progress: Progress) -> Mapping[str, Any]:
        """First values of the modules."""

    @abstractmethod
    def slice(self, examples: Sequence[Example]) -> Tensor:
        """Receiver KV of the examples' slices, (batch, positions, width), keys re-based, on the setting's device."""

    def shares(self, prefixed: bool) -> dict[Control, float]:
        """Shares of the steps that train on something else than slices and their answers.

        Args:
            prefixed: whether there is a prefix, which alone can learn from text.
        """
        answer = self.setting.config.answer
        return {"text": answer.text_share if prefixed else 0.0, "unanswerable": answer.unanswerable_share}

    def length(self, example: Example) -> int:
        """What is alike in a batch: what would be padded."""
        _, question = example
        return len(question.text) + len(question.answers[0])

    def epoch(self, batch: int, seed: int) -> list[ExampleBatch[Example]]:
        """As in `Task`."""
        return self._train.shuffled(batch, seed)

    def validation(self, batch: int) -> list[ExampleBatch[Example]]:
        """As in `Task`."""
        return self._validation.sorted(batch)

    def control_at(self, step: int) -> Control:
        """Every share of the steps as evenly spread as it goes; the rest is "true"."""
        left = 1.0
        for name, share in self._shares.items():
            if _due(step, share / left):
                return name
            step -= int(step * (share / left))  # its number among the steps that are not this one's
            left -= share
        return "true"

    def loss(self, batch: ExampleBatch[Example], control: Control) -> Outcome:
        """As in `Task`."""
        if control not in self.controls:
            raise ValueError(
                f"the {self.name} task has no control {control}; it has {', '.join(self.controls)}"
            )
        slices, posed = self.posed(batch, control)
        prefilled = self.receiver.begin(*(withheld(asked) for asked, _ in posed)).prefill(SliceKind.EXCERPT)
        tokenizer, prompts = self.receiver.tokenizer, [prompt.rendered for prompt in prefilled.prompts]
        if slices is not None:
            prefilled.put(slices)
        if control == "text":
            prefilled.ask_after([tokenise(tokenizer, document.text).ids for document, _ in batch.own])
        return prefilled.loss(replies_to(tokenizer, prompts, [reply for _, reply in posed], self.setting.end))

    def posed(
        self, batch: ExampleBatch[Example], control: Control
    ) -> tuple[Tensor | Sequence[Tensor] | None, list[Posed]]:
        """What stands behind the prefix, of each row as `slice` gives it, or nothing; and what is then asked."""
        slices, abstain = None, self.setting.config.answer.abstain
        if control not in ("alone", "text"):
            slices = self.slice(batch.own if control == "true" else batch.other)
        return slices, [
            (question.text, abstain if control == "unanswerable" else question.answers[0])
            for _, question in batch.own
        ]

    def _together(self, found: Sequence[Example], split: str) -> Examples[Example]:
        return Examples(found, self.length, lambda example: example[0].text, f"{self.name} task, {split}")


def _due(step: int, share: float) -> bool:
    """Whether a share of all steps has grown by one with this one."""
    return int((step + 1) * share) > int(step * share)
