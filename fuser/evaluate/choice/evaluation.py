"""Multiple choice over a shared prompt: every row, and the controls that a transfer must beat."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from fuser.bundle import Bundle
from fuser.data.choice import ChoiceItem, choice_prompt
from fuser.data.overlap import normalise
from fuser.evaluate.choice.batch import Transfer, bucketed, mismatched
from fuser.evaluate.choice.fitted import Fitted
from fuser.evaluate.choice.mark import mark
from fuser.evaluate.choice.needs import Given, missing
from fuser.evaluate.choice.prompts import Asker
from fuser.evaluate.choice.rows import BatchRows, Pair
from fuser.evaluate.choice.sent import SentSlices
from fuser.evaluate.choice.slices import SharerSlices
from fuser.evaluate.prediction import Prediction
from fuser.evaluate.rows import Row
from fuser.evaluate.speaker import Side, Speaker
from fuser.receiver import Receiver
from kvwire.plan import WHOLE


@dataclass(frozen=True, slots=True)
class Budget:
    """What an evaluation may spend.

    max_new_tokens: of every answer, the Sharer's in the fair relay too. relay_tokens: of the background text in the
    paper's relay. shots: training questions in the few-shot prompt, fewer where the window is short. fit_items:
    training questions that are fitted on, at most. batch: questions at once.
    """

    max_new_tokens: int = 16
    relay_tokens: int = 128
    shots: int = 5
    fit_items: int = 512
    batch: int = 16


class ChoiceEvaluation:
    """The rows of one table.

    Args:
        bundle: gives both prompt styles; fused and mismatched use its fuse head.
        receiver: model and tokenizer. sharer: likewise; None where no row needs it.
        items: the questions.
        training_items: calibrated and routing are fitted on them, few-shot shows some. Questions that are also
            evaluated are left out, and counted in `notes`.
        work_dir: keeps what is computed once: slices, and answers to training questions.
        identical: a bundle whose Sharer is the Receiver.
        seed: which training questions are taken.

    Raises:
        ValueError: no items, or two with one id.
    """

    def __init__(
        self,
        bundle: Bundle,
        receiver: tuple[Any, Any],
        sharer: tuple[Any, Any] | None,
        items: Sequence[ChoiceItem],
        training_items: Sequence[ChoiceItem],
        work_dir: Path,
        *,
        identical: Bundle | None = None,
        budget: Budget | None = None,
        seed: int = 1,
    ) -> None:
        if not items or len({item.id for item in items}) < len(items):
            raise ValueError("an evaluation needs questions, each with an id of its own")
        evaluated = {normalise(item.question) for item in items}
        training = [item for item in training_items if normalise(item.question) not in evaluated]
        self._training = random.Random(seed).sample(training, len(training))
        self._also_evaluated = len(training_items) - len(training)
        self._items, self._budget, self._work = items, budget or Budget(), work_dir
        work_dir.mkdir(parents=True, exist_ok=True)
        self._bundle, self._identical = bundle, identical
        asker = Asker(self._speaker(receiver), bundle.config.receiver_prompt)
        self._pair = Pair(asker, Receiver(*receiver, bundle))
        if sharer is not None:
            self._pair.sharer = Asker(self._speaker(sharer), bundle.config.sharer_prompt)
            self._pair.background = Speaker(Side(*sharer), self._budget.relay_tokens)
        self._lengths = [len(asker.speaker.tokens(asker.prompt(choice_prompt(item)))) for item in items]
        self._batches = bucketed(self._lengths, self._budget.batch)

    def run(
        self,
        rows: Sequence[Row],
        progress: Progress,
        done: Callable[[str], Collection[str]] = lambda row: (),
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[Prediction]:
        """Answer every question in every row, batch by batch, all rows of a batch together.

        Args:
            done: of a row's name the items that have been answered. Batches stay as they are, so that a run in parts
                gives what one run gives.
            check: called after every batch of training questions that rows are fitted on; may raise to stop.

        Raises:
            ValueError: an unknown row, one that lacks something (named), or a question too long for a window.
        """
        self._refuse(rows)
        self._prepare(rows, progress, check)
        mismatched = any(row.kind == "mismatched" for row in rows)
        others = self._mismatched() if mismatched else range(len(self._items))
        answered = {row: frozenset(done(row.name)) for row in rows}
        tasks = {row: progress.add_task(row.name, total=len(self._items)) for row in rows}
        for picked in self._batches:
            items = [self._items[i] for i in picked]
            batch = BatchRows(self._pair, items, [self._items[others[i]] for i in picked])
            for row in rows:
                if not answered[row].issuperset(item.id for item in items):
                    for item, answer in zip(items, batch.answers(row), strict=True):
                        if item.id not in answered[row]:
                            said, right = answer.said.text.strip(), mark(answer.said, item)
                            yield Prediction(row.name, item.id, said, right, answer.seconds, answer.bytes)
                progress.advance(tasks[row], len(picked))

    @property
    def notes(self) -> dict[str, Any]:
        """What rows were fitted to, and in this run the questions routed and the examples shown: plain JSON values."""
        pair = self._pair
        training = {"training": len(self._training), "training also evaluated": self._also_evaluated}
        bias = None if pair.bias is None else [round(number, 4) for number in pair.bias.tolist()]
        return training | {"bias": bias, "threshold": pair.threshold} | dict(pair.counts)

    def missing(self, kind: str) -> str | None:
        """What rows of a kind need and have not; None where they can run.

        Raises:
            ValueError: an unknown kind.
        """
        pair, asked = self._pair, len({item.question for item in self._items})
        given = Given(self._bundle, pair.sharer is not None, bool(self._training), self._identical, asked)
        return missing(kind, given)

    def _speaker(self, side: tuple[Any, Any]) -> Speaker:
        return Speaker(Side(*side), self._budget.max_new_tokens)

    def _mismatched(self) -> list[int]:
        return mismatched(self._items, [index for batch in self._batches for index in batch])

    def _refuse(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if reason := self.missing(row.kind):
                raise ValueError(f"row {row.name} {reason}")
        longest, window = max(self._lengths), self._pair.receiver.speaker.window
        if longest + self._budget.max_new_tokens > window:
            item = self._items[self._lengths.index(longest)]
            raise ValueError(f"question {item.id} has {longest} tokens; the Receiver's window is {window}")

    def _prepare(self, rows: Sequence[Row], progress: Progress, check: Callable[[], None]) -> None:
        """Fit what is fitted, and open the slices that the rows read."""
        pair, tokens, kinds = self._pair, self._budget.max_new_tokens, {row.kind for row in rows}
        receiver = pair.receiver.speaker
        if self._bundle.fuse is not None and pair.sharer is not None:
            slices = SharerSlices(self._bundle, pair.sharer.speaker.side, tokens, self._work / "slices")
            pair.transfer = Transfer(slices, pair.service)
            if any(row.plan != WHOLE for row in rows):
                pair.sent = SentSlices(self._bundle, pair.service)
        if self._identical is not None and "identical" in kinds:
            slices = SharerSlices(self._identical, receiver.side, tokens, self._work / "slices")
            pair.own = Transfer(slices, Receiver(*receiver.side, self._identical))
        models = f"{self._bundle.config.sharer} {self._bundle.config.receiver}"
        training = self._training[: self._budget.fit_items]
        fitted = Fitted(training, self._work, models, self._budget.batch, progress, check)
        pair.examples = self._training[: self._budget.shots]
        if "calibrated" in kinds:
            pair.bias = fitted.bias(pair.receiver)
        if "routing" in kinds and pair.sharer is not None:
            pair.threshold = fitted.threshold(pair.receiver, pair.sharer)
