"""The two rows that are fitted on training questions, and the file that keeps what was fitted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor

from fuser.atomic import atomic_write
from fuser.lab.evaluate.choice.batch import bucketed, letter_logits
from fuser.lab.evaluate.choice.fit import confidence, fit_bias, fit_threshold, masked
from fuser.lab.evaluate.choice.mark import mark
from fuser.lab.evaluate.choice.prompts import Asker
from fuser.lab.evaluate.speaker import Said
from fuser.prompts.choice import ChoiceItem, choice_prompt

METRIC = "lenient"
"""The metric whose gain decides when to ask the Sharer."""


class Fitted:
    """Letter bias and routing threshold from training questions; each is fitted when first asked for.

    Args:
        items: training questions; none may be one that is evaluated.
        directory: keeps the answers to them, a batch at a time, so that a run that was stopped goes on.
        pair: names both models, by their weights.
        check: called after every batch; may raise to stop.
    """

    def __init__(
        self,
        items: Sequence[ChoiceItem],
        directory: Path,
        pair: str,
        batch: int,
        progress: Progress,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._items = items
        self._directory = directory
        self._pair = pair
        self._batch = batch
        self._progress = progress
        self._check = check

    def bias(self, receiver: Asker) -> Tensor:
        """(10,) float32, to be added to the Receiver's letter logits."""
        answers = torch.tensor([item.answer for item in self._items])
        return fit_bias(self._logits(self._answers(receiver, "Receiver")), answers)

    def threshold(self, receiver: Asker, sharer: Asker) -> float:
        """The Receiver's confidence below which the Sharer is asked."""
        mine, theirs = self._answers(receiver, "Receiver"), self._answers(sharer, "Sharer")
        right = [
            torch.tensor([mark(said, item)[METRIC] for said, item in zip(answers, self._items, strict=True)])
            for answers in (mine, theirs)
        ]
        return fit_threshold(confidence(self._logits(mine)), *right)

    def _logits(self, said: Sequence[Said]) -> Tensor:
        return masked(letter_logits(said), [len(item.choices) for item in self._items])

    def _answers(self, asker: Asker, name: str) -> list[Said]:
        """A side's answers to the training questions, kept on disk."""
        prompts = [asker.prompt(choice_prompt(item)) for item in self._items]
        about = json.dumps([self._pair, asker.speaker.max_new_tokens, [prompt.text for prompt in prompts]])
        path = self._directory / f"{name.lower()}-{hashlib.sha256(about.encode()).hexdigest()[:16]}.json"
        said = _load(path)
        task = self._progress.add_task(f"{name} on training questions", total=len(prompts))
        for picked in bucketed([len(asker.speaker.tokens(prompt)) for prompt in prompts], self._batch):
            if not said.keys() >= set(picked):
                answers = asker.speaker.answer([prompts[index] for index in picked])
                said |= zip(picked, answers, strict=True)
                _save(path, said)
                self._check()
            self._progress.advance(task, len(picked))
        return [said[index] for index in range(len(prompts))]


def _load(path: Path) -> dict[int, Said]:
    """Answers by place among the questions."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return {index: Said(text, torch.tensor(letters), seconds) for index, text, letters, seconds in kept}


def _save(path: Path, said: Mapping[int, Said]) -> None:
    rows = [(i, s.text, s.letters.tolist(), s.seconds) for i, s in said.items()]
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(rows), "utf-8")
