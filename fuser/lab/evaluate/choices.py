"""Questions with choices over a shared prompt, in batches: what the Receiver says with this or that fused into it.

Every row asks in one question section, so that any prompt style serves.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from fuser.atomic import write_json
from fuser.bundle.bundle import Bundle
from fuser.lab.data.overlap import normalise
from fuser.lab.evaluate import controls
from fuser.lab.evaluate.evaluation import Batch, Given, Task, bucketed
from fuser.lab.evaluate.letters import best_letter, letter_bias, letters_of, mark
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.rows import Answers, Registry, RowAnswer
from fuser.lab.evaluate.shared_slices import ChoiceDrafts, ChoiceTransfer, Heard, fuse_heard
from fuser.lab.evaluate.speaker import Speaker, sections
from fuser.prompts.choice import ChoiceItem, choice_answer, choice_prompt
from fuser.prompts.prompt import reply_ids
from fuser.receiver import Prefilled, Receiver
from kvwire.plan import WHOLE, Plan
from kvwire.segment import SliceKind

ANSWER_TOKENS = 16
_FIT_ITEMS = 512  # training questions that are fitted on, at most

ROWS: Registry[ChoiceBatch] = Registry("of multiple choice")


def _lacks_slices(task: ChoiceTask) -> str | None:
    return None if task.given.bundle.fuse else "needs a fuse head: the bundle makes no shared slices"


def _alone(task: ChoiceTask) -> str | None:
    if len({item.question for item in task.items}) < 2:
        return "needs at least two different questions: a higher limit"
    return None


def _lacks_another(task: ChoiceTask) -> str | None:
    return _alone(task) or _lacks_slices(task)


def _lacks_drafts(task: ChoiceTask) -> str | None:
    return None if task.given.bundle.translate else "needs a translate head: the bundle makes no draft slices"


def _lacks_anothers_draft(task: ChoiceTask) -> str | None:
    return _alone(task) or _lacks_drafts(task)


def _lacks_training(task: ChoiceTask) -> str | None:
    return None if task.training else "needs training questions: the key calibration"


def _lacks_identical(task: ChoiceTask) -> str | None:
    if task.given.identical is None:
        return "needs a bundle whose Sharer is the Receiver's own model: the key identical"
    if task.given.identical.fuse is None:
        return "needs a fuse head: the bundle of the key identical makes no shared slices"
    return None


class ChoiceTask(Task[ChoiceTransfer]):
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
        return ChoiceBatch(self, picked)

    def mark(self, index: int, text: str, letters: Any) -> dict[str, float]:
        return mark(text, letters, self.items[index])

    def cap_bytes(self, plan: Plan) -> int:
        heard = (self.transfer.hear([item])[0] for item in self.items)
        return self.transfer.most_bytes(heard, plan)

    def between(self, bundle: Bundle, sharer: Model) -> ChoiceTransfer:
        return ChoiceTransfer(bundle, sharer, self.given.receiver, self.given.work / "slices")

    @cached_property
    def bias(self) -> torch.Tensor:
        """(10,) float32, to be added to the Receiver's letter logits."""
        given, model = self.given, str(self.given.bundle.config.receiver)
        kept = model, given.work, given.batch, self.progress, self.deadline
        found = letter_bias(self.training, self.receiver, *kept)
        write_json(self._fitted, {"bias": [round(number, 4) for number in found.tolist()]})
        return found

    @cached_property
    def service(self) -> Receiver:
        given = self.given
        if given.bundle.fuse is not None:
            return self.transfer.receiver
        return Receiver(given.receiver.network, given.receiver.tokenizer, given.bundle)

    @cached_property
    def drafts(self) -> ChoiceDrafts:
        return ChoiceDrafts(self.given.bundle, self.given.sharer, self.service)

    @cached_property
    def mismatched(self) -> list[int]:
        """For each question the one whose slice it gets as a control."""
        order = [index for batch in bucketed(self.lengths, self.given.batch) for index in batch]
        return mismatched(self.items, order)


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
        return self.task.transfer.hear(self.items)

    def alone(self) -> list[RowAnswer]:
        read, seconds = self._reading
        prefilled, cost = read.copy(), RowAnswer("", seconds)
        return [said.with_cost_of(cost) for said in self.task.receiver.say(prefilled.past, prefilled.rest)]

    def fused(self, transfer: ChoiceTransfer, heard: Sequence[Heard], plan: Plan = WHOLE) -> list[RowAnswer]:
        """Answers with slices fused: whole ones in a batch, others one at a time as a plan sends them."""
        if plan != WHOLE:
            return [self._sent(*pair, plan) for pair in zip(self.items, heard, strict=True)]
        own = transfer is self.task.transfer
        read, seconds = self._reading if own else self._read(transfer.receiver)
        started = time.perf_counter()
        prefilled = read.copy()
        fuse_heard(prefilled, heard)
        fusing = (time.perf_counter() - started) / len(heard) + seconds
        answers = self.task.receiver.say(prefilled.past, prefilled.rest)
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
            prefilled, size = self.task.transfer.prefilled(item, heard, plan)
            end, prompt = int(tokenizer.eos_token_id), prefilled.prompts[0].rendered
            loss = float(prefilled.loss([reply_ids(tokenizer, prompt, choice_answer(item), end)]).loss)
            found.append(RowAnswer("", bytes=size, marks={"loss": loss}))
        return found

    def _sent(self, item: ChoiceItem, heard: Heard, plan: Plan) -> RowAnswer:
        """An answer behind a slice by a plan; seconds of encoding and decoding included."""
        started = time.perf_counter()
        prefilled, size = self.task.transfer.prefilled(item, heard, plan)
        cost = RowAnswer("", time.perf_counter() - started + heard.seconds, size)
        (said,) = self.task.receiver.say(prefilled.past, prefilled.rest)
        return said.with_cost_of(cost)

    @cached_property
    def _reading(self) -> tuple[Prefilled, float]:
        return self._read(self.task.service)

    @torch.inference_mode()
    def _read(self, receiver: Receiver) -> tuple[Prefilled, float]:
        """The Receiver's own reading of the questions, all but their prompts' last tokens; seconds of a question."""
        begun = receiver.begin(*(sections(choice_prompt(item)) for item in self.items))
        started = time.perf_counter()
        return begun.prefill(SliceKind.SHARED), (time.perf_counter() - started) / len(self.items)

    # The rows; docs/evaluation.md says what each is for.

    @ROWS.row("receiver", "Receiver")
    def _receiver(self, plan: Plan) -> Answers:
        return self.alone()

    @ROWS.row("calibrated", "Receiver, calibrated", needs=_lacks_training)
    def _calibrated(self, plan: Plan) -> Answers:
        found = []
        for item, answer in zip(self.items, self.of("receiver"), strict=True):
            biased = letters_of(answer) + self.task.bias
            found.append(replace(answer, text=best_letter(biased, item), letters=biased))
        return found

    @ROWS.row("sharer", "Sharer")
    def _sharer(self, plan: Plan) -> Answers:
        said = self.task.sharer.answer([choice_prompt(item) for item in self.items])
        return [replace(one, bytes=len(one.text.encode())) for one in said]

    @ROWS.row("relay-fair", "text relay (fair)")
    def _relay_fair(self, plan: Plan) -> Answers:
        told, texts = self.of("sharer"), []
        for item, answer in zip(self.items, told, strict=True):
            text = answer.text
            while text and not self.task.receiver.fits(with_answer(item, text)):
                text = text[: len(text) // 2]
            texts.append(with_answer(item, text))
        answers = self.task.receiver.answer(texts)
        return [mine.with_cost_of(theirs) for mine, theirs in zip(answers, told, strict=True)]

    @ROWS.row("fused", "fused", needs=_lacks_slices, by="plan")
    def _fused(self, plan: Plan) -> Answers:
        return self.fused(self.task.transfer, self.heard, plan)

    @ROWS.row(
        "mismatched", "fused, slice of another question", needs=_lacks_another, control="fused", by="plan"
    )
    def _mismatched(self, plan: Plan) -> Answers:
        return self.fused(self.task.transfer, self.task.transfer.hear(self.strangers), plan)

    @ROWS.row("zeroed", "fused, a slice of zeros", needs=_lacks_slices, control="fused", by="plan")
    def _zeroed(self, plan: Plan) -> Answers:
        return self.fused(self.task.transfer, controls.zeroed(self.heard), plan)

    @ROWS.row("random", "fused, a random slice", needs=_lacks_another, control="fused", by="plan")
    def _random(self, plan: Plan) -> Answers:
        return self.fused(self.task.transfer, controls.random_slices(self.heard, self.picked[0]), plan)

    @ROWS.row("drafted", "fused, the Sharer's draft", needs=_lacks_drafts, by="draft", on_request=True)
    def _drafted(self, plan: Plan) -> Answers:
        return self.drafted(self.items, plan)

    @ROWS.row(
        "drafted-mismatched",
        "fused, the draft of another question",
        needs=_lacks_anothers_draft,
        control="drafted",
        by="draft",
        on_request=True,
    )
    def _drafted_mismatched(self, plan: Plan) -> Answers:
        return self.drafted(self.strangers, plan)

    @ROWS.row("identical", "fused, Identical Sharer", needs=_lacks_identical)
    def _identical(self, plan: Plan) -> Answers:
        return self.fused(self.task.identical, self.task.identical.hear(self.items))


def with_answer(item: ChoiceItem, said: str) -> str:
    """The question of the text relay: what the Sharer answered to the very same prompt, then the prompt."""
    return f"A larger model answered the question below with: {said.strip()}\n\n{choice_prompt(item)}"


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
