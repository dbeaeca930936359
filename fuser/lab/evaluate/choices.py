"""Questions with choices over a shared prompt, in batches: what the Receiver says with this or that fused into it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from fuser.atomic import write_json
from fuser.bundle.bundle import Bundle
from fuser.lab.data.overlap import normalise
from fuser.lab.evaluate.calibration import Calibration
from fuser.lab.evaluate.choice_drafts import ChoiceDrafts
from fuser.lab.evaluate.choice_rows import ROWS
from fuser.lab.evaluate.evaluation import Batch, Given, Task, bucketed
from fuser.lab.evaluate.letters import mark
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.rows import Registry, RowAnswer
from fuser.lab.evaluate.shared_slices import Heard, SentSlices, SharerSlices, fuse_heard
from fuser.lab.evaluate.speaker import Speaker, sections
from fuser.prompts.choice import ChoiceItem, choice_answer, choice_prompt
from fuser.prompts.prompt import reply_ids
from fuser.receiver import Prefilled, Receiver
from kvwire.plan import WHOLE, Plan
from kvwire.segment import SliceKind

ANSWER_TOKENS = 16
BACKGROUND_TOKENS = 128
"""Budget of the background that the Sharer writes in the paper's relay."""
_FIT_ITEMS = 512  # training questions that are fitted on, at most


class ChoiceTask(Task["ChoiceTransfer"]):
    """Questions with choices.

    Args:
        training: questions that rows are fitted on. Those that are evaluated too are left out, and counted in `notes`.
        folder: keeps what was fitted.
        seed: which training questions are taken.
    """

    rows: ClassVar[Registry[Any]] = ROWS
    kind = SliceKind.SHARED
    metric = "strict"

    def __init__(
        self,
        given: Given,
        items: Sequence[ChoiceItem],
        folder: Path,
        training: Sequence[ChoiceItem] = (),
        seed: int = 1,
        max_new_tokens: int = ANSWER_TOKENS,
    ) -> None:
        style = given.bundle.config
        self.receiver = Speaker(given.receiver, style.receiver_prompt, max_new_tokens)
        self.sharer = Speaker(given.sharer, style.sharer_prompt, max_new_tokens)
        self.background = Speaker(given.sharer, style.sharer_prompt, BACKGROUND_TOKENS)
        lengths = [len(self.receiver.tokens(choice_prompt(item))) for item in items]
        groups = {item.id: item.context or item.question for item in items}
        super().__init__(given, [item.id for item in items], lengths, groups)
        self.items = tuple(items)
        asked = {normalise(item.question) for item in items}
        fresh = [item for item in training if normalise(item.question) not in asked]
        self.training = random.Random(seed).sample(fresh, len(fresh))[:_FIT_ITEMS]
        self._counts = {"training": len(fresh), "training also evaluated": len(training) - len(fresh)}
        self._fitted = folder / "fitted.json"

    @property
    def notes(self) -> dict[str, Any]:
        """As in `Task`: how many training questions there were, and what was fitted to them."""
        fitted = json.loads(self._fitted.read_text("utf-8")) if self._fitted.exists() else {}
        return self._counts | fitted

    def batch(self, picked: Sequence[int]) -> ChoiceBatch:
        """As in `Task`."""
        return ChoiceBatch(self, picked)

    def mark(self, index: int, text: str, letters: Any) -> dict[str, float]:
        """As in `Task`."""
        return mark(text, letters, self.items[index])

    def cap_bytes(self, plan: Plan) -> int:
        """As in `Task`."""
        heard = (self.transfer.hear([item])[0] for item in self.items)
        return self.transfer.sent.most_bytes(heard, plan)

    def between(self, bundle: Bundle, sharer: Model) -> ChoiceTransfer:
        """As in `Task`."""
        return ChoiceTransfer(self, bundle, sharer)

    @cached_property
    def bias(self) -> torch.Tensor:
        """(10,) float32, to be added to the Receiver's letter logits."""
        bias = self._calibration.bias(self.receiver)
        self._keep("bias", [round(number, 4) for number in bias.tolist()])
        return bias

    @cached_property
    def threshold(self) -> float:
        """The Receiver's confidence below which the Sharer is asked."""
        threshold = self._calibration.threshold(self.receiver, self.sharer)
        self._keep("threshold", threshold)
        return threshold

    @cached_property
    def service(self) -> Receiver:
        """The Receiver, also of a bundle that sends no shared slices."""
        given = self.given
        if given.bundle.fuse is not None:
            return self.transfer.receiver
        return Receiver(given.receiver.network, given.receiver.tokenizer, given.bundle)

    @cached_property
    def drafts(self) -> ChoiceDrafts:
        """What the Sharer replies."""
        return ChoiceDrafts(self.given.bundle, self.given.sharer, self.service)

    @cached_property
    def mismatched(self) -> list[int]:
        """For each question the one whose slice it gets as a control."""
        order = [index for batch in bucketed(self.lengths, self.given.batch) for index in batch]
        return mismatched(self.items, order)

    @property
    def _calibration(self) -> Calibration:
        given = self.given
        pair = f"{given.bundle.config.sharer} {given.bundle.config.receiver}"
        return Calibration(self.training, given.work, pair, given.batch, self.progress, self.deadline)

    def _keep(self, name: str, value: Any) -> None:
        kept = json.loads(self._fitted.read_text("utf-8")) if self._fitted.exists() else {}
        write_json(self._fitted, kept | {name: value})


class ChoiceTransfer:
    """A bundle between a Sharer, whose slices it sends, and the task's Receiver, which takes them in."""

    def __init__(self, task: ChoiceTask, bundle: Bundle, sharer: Model) -> None:
        self._slices = SharerSlices(bundle, sharer, task.given.work / "slices")
        model = task.given.receiver
        self.receiver = Receiver(model.network, model.tokenizer, bundle)
        self.sent = SentSlices(bundle, self.receiver)

    def hear(self, items: Sequence[ChoiceItem]) -> list[Heard]:
        """The slice of each question."""
        return self._slices.hear([sections(choice_prompt(item)) for item in items])


class ChoiceReading:
    """The Receiver's own reading of some questions, all but their prompts' last tokens. seconds: a question's."""

    def __init__(self, receiver: Receiver, items: Sequence[ChoiceItem]) -> None:
        begun = receiver.begin(*(sections(choice_prompt(item)) for item in items))
        started = time.perf_counter()
        with torch.inference_mode():
            self._prefilled = begun.prefill(SliceKind.SHARED)
        self.seconds = (time.perf_counter() - started) / len(items)

    def prefilled(self) -> Prefilled:
        """What was read, to fuse slices into or to answer from."""
        return self._prefilled.copy()


class ChoiceBatch(Batch):
    """Some of the questions; the words by which rows say how they answer."""

    def __init__(self, task: ChoiceTask, picked: Sequence[int]) -> None:
        super().__init__(task, picked)
        self.task = task
        self.items = [task.items[index] for index in picked]

    @property
    def strangers(self) -> list[ChoiceItem]:
        """The questions whose slices these get as a control."""
        return [self.task.items[self.task.mismatched[index]] for index in self.picked]

    @cached_property
    def heard(self) -> list[Heard]:
        """The slices of the questions."""
        return self.task.transfer.hear(self.items)

    @cached_property
    def others(self) -> list[Heard]:
        """The slices that they get as a control."""
        return self.task.transfer.hear(self.strangers)

    def alone(self) -> list[RowAnswer]:
        """The Receiver's own answers."""
        prefilled = self._reading.prefilled()
        cost = RowAnswer("", self._reading.seconds)
        return [said.with_cost_of(cost) for said in self.task.receiver.say(prefilled.past, prefilled.rest)]

    def told(self, told: Sequence[RowAnswer], before: Callable[[ChoiceItem, str], str]) -> list[RowAnswer]:
        """The Receiver's answers with a text before the question, of which as much is kept as fits the window."""
        texts = []
        for item, answer in zip(self.items, told, strict=True):
            text = answer.text
            while text and not self.task.receiver.fits(before(item, text)):
                text = text[: len(text) // 2]
            texts.append(before(item, text))
        answers = self.task.receiver.answer(texts)
        return [mine.with_cost_of(theirs) for mine, theirs in zip(answers, told, strict=True)]

    def fused(self, transfer: ChoiceTransfer, heard: Sequence[Heard], plan: Plan = WHOLE) -> list[RowAnswer]:
        """Answers with slices fused: whole ones in a batch, others one at a time as a plan sends them."""
        speaker = self.task.receiver
        if plan != WHOLE:
            return [self._sent(*pair, plan) for pair in zip(self.items, heard, strict=True)]
        own = transfer is self.task.transfer
        reading = self._reading if own else ChoiceReading(transfer.receiver, self.items)
        started = time.perf_counter()
        prefilled = reading.prefilled()
        fuse_heard(prefilled, heard)
        fusing = (time.perf_counter() - started) / len(heard) + reading.seconds
        answers = speaker.say(prefilled.past, prefilled.rest)
        costs = [RowAnswer("", fusing + one.seconds, one.bytes) for one in heard]
        return [said.with_cost_of(cost) for said, cost in zip(answers, costs, strict=True)]

    @torch.inference_mode()
    def drafted(self, sources: Sequence[ChoiceItem], plan: Plan) -> list[RowAnswer]:
        """Answers behind the drafts for some questions, one at a time as a plan sends them."""
        found = []
        for item, source in zip(self.items, sources, strict=True):
            prefilled, size, seconds = self.task.drafts.prefilled(item, source, plan)
            (said,) = self.task.receiver.say(prefilled.past, prefilled.rest)
            found.append(said.with_cost_of(RowAnswer("", seconds, size)))
        return found

    @torch.inference_mode()
    def losses(self, plan: Plan) -> list[RowAnswer]:
        """How surprised the Receiver is by the right answers behind slices."""
        tokenizer, found = self.task.given.receiver.tokenizer, []
        for item, heard in zip(self.items, self.heard, strict=True):
            prefilled, size = self.task.transfer.sent.prefilled(item, heard, plan)
            end, prompt = int(tokenizer.eos_token_id), prefilled.prompts[0].rendered
            loss = float(prefilled.loss([reply_ids(tokenizer, prompt, choice_answer(item), end)]).loss)
            found.append(RowAnswer("", bytes=size, marks={"loss": loss}))
        return found

    def _sent(self, item: ChoiceItem, heard: Heard, plan: Plan) -> RowAnswer:
        """An answer behind a slice by a plan; seconds of encoding and decoding included."""
        started = time.perf_counter()
        prefilled, size = self.task.transfer.sent.prefilled(item, heard, plan)
        cost = RowAnswer("", time.perf_counter() - started + heard.seconds, size)
        (said,) = self.task.receiver.say(prefilled.past, prefilled.rest)
        return said.with_cost_of(cost)

    @cached_property
    def _reading(self) -> ChoiceReading:
        return ChoiceReading(self.task.service, self.items)


def mismatched(items: Sequence[ChoiceItem], order: Sequence[int]) -> list[int]:
    """For each item the one whose slice it gets in the mismatched row: another question, of about the same length.

    Args:
        order: indices of the items by length.

    Raises:
        ValueError: all items ask the same question.
    """
    found = [0] * len(items)
    for place, index in enumerate(order):
        # Neighbours swap, so that both are mostly in one batch.
        hops = [place ^ 1, *(place + hop for hop in range(1, len(order)))]
        partners = (order[hop % len(order)] for hop in hops)
        other = next((p for p in partners if items[p].question != items[index].question), None)
        if other is None:
            raise ValueError("mismatching needs at least two different questions; raise the limit")
        found[index] = other
    return found
