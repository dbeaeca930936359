"""What is fitted on training questions: a bias per letter (the row `calibrated`), a threshold (the row `routing`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional

from fuser.atomic import write_json
from fuser.lab.evaluate.evaluation import TimeLimit, bucketed
from fuser.lab.evaluate.letters import mark
from fuser.lab.evaluate.rows import RowAnswer
from fuser.lab.evaluate.speaker import Speaker
from fuser.prompts.choice import ChoiceItem, choice_prompt

METRIC = "lenient"
"""The metric whose gain decides when to ask the Sharer."""


class Calibration:
    """Letter bias and routing threshold from training questions.

    Args:
        items: training questions; none may be one that is evaluated.
        directory: keeps the answers to them, a batch at a time, so that a run that was stopped continues.
        pair: names both models, by their weights.
    """

    def __init__(
        self,
        items: Sequence[ChoiceItem],
        directory: Path,
        pair: str,
        batch: int,
        progress: Progress,
        deadline: TimeLimit,
    ) -> None:
        self._items, self._directory, self._pair, self._batch = items, directory, pair, batch
        self._progress, self._deadline = progress, deadline

    def bias(self, receiver: Speaker) -> Tensor:
        """(10,) float32, to be added to the Receiver's letter logits."""
        answers = torch.tensor([item.answer for item in self._items], device="cpu")
        return fit_bias(self._logits(self._answers(receiver, "Receiver")), answers)

    def threshold(self, receiver: Speaker, sharer: Speaker) -> float:
        """The Receiver's confidence below which the Sharer is asked."""
        mine, theirs = self._answers(receiver, "Receiver"), self._answers(sharer, "Sharer")
        right = [
            torch.tensor(
                [mark(s.text, letters_of(s), i)[METRIC] for s, i in zip(said, self._items, strict=True)],
                device="cpu",
            )
            for said in (mine, theirs)
        ]
        return fit_threshold(confidence(self._logits(mine)), *right)

    def _logits(self, said: Sequence[RowAnswer]) -> Tensor:
        return masked(torch.stack(list(map(letters_of, said))), [len(item.choices) for item in self._items])

    def _answers(self, speaker: Speaker, name: str) -> list[RowAnswer]:
        """A side's answers to the training questions, kept on disk."""
        texts = [choice_prompt(item) for item in self._items]
        about = json.dumps([self._pair, speaker.style.to_dict(), speaker.max_new_tokens, texts])
        path = self._directory / f"{name.lower()}-{hashlib.sha256(about.encode()).hexdigest()[:16]}.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        said = {place: RowAnswer(text, letters=torch.tensor(row, device="cpu")) for place, text, row in kept}
        task = self._progress.add_task(f"{name} on training questions", total=len(texts))
        for picked in bucketed([len(speaker.tokens(text)) for text in texts], self._batch):
            if not said.keys() >= set(picked):
                said |= zip(picked, speaker.answer([texts[place] for place in picked]), strict=True)
                rows = [(place, one.text, letters_of(one).tolist()) for place, one in said.items()]
                write_json(path, rows)
                self._deadline.check()
            self._progress.advance(task, len(picked))
        return [said[place] for place in range(len(texts))]


def letters_of(answer: RowAnswer) -> Tensor:
    """(10,) float32, the letter logits of a model's answer to a question with choices."""
    assert answer.letters is not None  # every answer of a speaker has them
    return answer.letters


def masked(logits: Tensor, choices: Sequence[int]) -> Tensor:
    """Letter logits (items, letters) with those beyond an item's number of choices at minus infinity."""
    letters = torch.arange(logits.shape[1], device="cpu")
    return logits.masked_fill(letters >= torch.tensor(choices, device="cpu")[:, None], -torch.inf)


def fit_bias(logits: Tensor, answers: Tensor, penalty: float = 1e-3) -> Tensor:
    """The bias a letter, (letters,) float32 with mean 0, under which the answers are most likely.

    A logistic regression with intercepts alone: convex, and no more numbers than letters. It is what a Fuser must beat
    that has only learnt how often each letter is right (reference: the four-number calibration of the published pair).

    Args:
        logits: (items, letters), minus infinity where an item has no such choice.
        answers: (items,) int64.
        penalty: of the squared bias; it also holds letters that no item has at 0.
    """
    bias = torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True, device="cpu")
    solver = torch.optim.LBFGS([bias], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-9)
    fixed = logits.double()

    def loss() -> Tensor:
        solver.zero_grad()
        value = functional.cross_entropy(fixed + bias, answers) + penalty * (bias * bias).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    found = bias.detach()
    return (found - found.mean()).float()


def confidence(logits: Tensor) -> Tensor:
    """The largest probability among an item's letters, (items,)."""
    return logits.softmax(1).amax(1)


def fit_threshold(confidences: Tensor, receiver_right: Tensor, sharer_right: Tensor) -> float:
    """The confidence below which asking the Sharer pays most on training questions; of equals, the lowest.

    Args:
        confidences: (items,) of the Receiver. receiver_right, sharer_right: (items,) 0 or 1.

    Returns:
        0 where asking never pays.
    """
    order = confidences.argsort()
    gains = torch.cat((torch.zeros(1, device="cpu"), (sharer_right - receiver_right)[order].cumsum(0)))
    ascending = confidences[order]
    # Equal confidences are routed together: a cut is possible only where the next one is larger.
    end = torch.ones(1, device="cpu")
    possible = torch.cat((end, (ascending[1:] > ascending[:-1]).float(), end)) > 0
    routed = int(gains.masked_fill(~possible, -torch.inf).argmax())
    if routed == 0:
        return 0.0
    if routed == len(order):
        return 2.0  # above every probability: always
    return float((ascending[routed - 1] + ascending[routed]) / 2)
