"""The rows of questions with choices. docs/evaluation.md says what each of them is for.

Every row asks in one question section, so that any prompt style serves. In the paper's relay the Sharer's text is an
earlier turn of the Receiver's conversation; here it stands before the question.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from fuser.lab.evaluate import controls
from fuser.lab.evaluate.calibration import confidence, letters_of, masked
from fuser.lab.evaluate.letters import best_letter
from fuser.lab.evaluate.rows import Answers, Registry
from fuser.prompts.choice import ChoiceItem, choice_prompt
from kvwire.plan import Plan

if TYPE_CHECKING:
    from fuser.lab.evaluate.choices import ChoiceBatch, ChoiceTask

ROWS: Registry[ChoiceBatch] = Registry("of multiple choice")


def _slices(task: ChoiceTask) -> str | None:
    return None if task.given.bundle.fuse else "needs a fuse head: the bundle makes no shared slices"


def _alone(task: ChoiceTask) -> str | None:
    if len({item.question for item in task.items}) < 2:
        return "needs at least two different questions: a higher limit"
    return None


def _another(task: ChoiceTask) -> str | None:
    return _alone(task) or _slices(task)


def _drafts(task: ChoiceTask) -> str | None:
    return None if task.given.bundle.translate else "needs a translate head: the bundle makes no draft slices"


def _anothers_draft(task: ChoiceTask) -> str | None:
    return _alone(task) or _drafts(task)


def _training(task: ChoiceTask) -> str | None:
    return None if task.training else "needs training questions: the key calibration"


def _identical(task: ChoiceTask) -> str | None:
    if task.given.identical is None:
        return "needs a bundle whose Sharer is the Receiver's own model: the key identical"
    if task.given.identical.fuse is None:
        return "needs a fuse head: the bundle of the key identical makes no shared slices"
    return None


@ROWS.row("receiver", "Receiver")
def receiver(batch: ChoiceBatch, plan: Plan) -> Answers:
    """The Receiver alone."""
    return batch.alone()


@ROWS.row("calibrated", "Receiver, calibrated", needs=_training)
def calibrated(batch: ChoiceBatch, plan: Plan) -> Answers:
    """The Receiver's best letter, a bias for each letter added."""
    found = []
    for item, answer in zip(batch.items, batch.of("receiver"), strict=True):
        biased = letters_of(answer) + batch.task.bias
        found.append(replace(answer, text=best_letter(biased, item), letters=biased))
    return found


@ROWS.row("sharer", "Sharer")
def sharer(batch: ChoiceBatch, plan: Plan) -> Answers:
    """The Sharer alone: to the very prompt that the slice is cut from, within the same budget."""
    said = batch.task.sharer.answer([choice_prompt(item) for item in batch.items])
    return [replace(one, bytes=len(one.text.encode())) for one in said]


@ROWS.row("relay-paper", "text relay (paper)")
def relay_paper(batch: ChoiceBatch, plan: Plan) -> Answers:
    """Background from the Sharer, which sees no choices; then the Receiver, with it."""
    said = batch.task.background.answer([background(item) for item in batch.items])
    return batch.told([replace(one, bytes=len(one.text.encode())) for one in said], with_background)


@ROWS.row("relay-fair", "text relay (fair)")
def relay_fair(batch: ChoiceBatch, plan: Plan) -> Answers:
    """The Receiver given the Sharer's answer."""
    return batch.told(batch.of("sharer"), with_answer)


@ROWS.row("routing", "routing", needs=_training)
def routing(batch: ChoiceBatch, plan: Plan) -> Answers:
    """The Sharer's answer where the Receiver, which is asked first, is less confident than the threshold."""
    own, choices = batch.of("receiver"), [len(item.choices) for item in batch.items]
    sure = confidence(masked(torch.stack([letters_of(answer) for answer in own]), choices)).tolist()
    answers = zip(sure, own, batch.of("sharer"), strict=True)
    return [
        theirs.with_cost_of(mine) if certain < batch.task.threshold else mine
        for certain, mine, theirs in answers
    ]


@ROWS.row("fused", "fused", needs=_slices, by="plan")
def fused(batch: ChoiceBatch, plan: Plan) -> Answers:
    """The slice of the question."""
    return batch.fused(batch.task.transfer, batch.heard, plan)


@ROWS.row("mismatched", "fused, slice of another question", needs=_another, control="fused", by="plan")
def mismatched(batch: ChoiceBatch, plan: Plan) -> Answers:
    """The slice of another question of about the same length."""
    return batch.fused(batch.task.transfer, batch.others, plan)


@ROWS.row("zeroed", "fused, a slice of zeros", needs=_slices, control="fused", by="plan")
def zeroed(batch: ChoiceBatch, plan: Plan) -> Answers:
    """Keys and values of zeros."""
    return batch.fused(batch.task.transfer, controls.zeroed(batch.heard), plan)


@ROWS.row("random", "fused, a random slice", needs=_another, control="fused", by="plan")
def random(batch: ChoiceBatch, plan: Plan) -> Answers:
    """Random keys and values, each layer's with the mean and covariance of the batch's true ones."""
    noise = controls.random_slices(batch.heard, batch.picked[0])
    return batch.fused(batch.task.transfer, noise, plan)


@ROWS.row("drafted", "fused, the Sharer's draft", needs=_drafts, by="draft", on_request=True)
def drafted(batch: ChoiceBatch, plan: Plan) -> Answers:
    """The KV of the Sharer's own short reply, translated and put before the question."""
    return batch.drafted(batch.items, plan)


@ROWS.row(
    "drafted-mismatched",
    "fused, the draft of another question",
    needs=_anothers_draft,
    control="drafted",
    by="draft",
    on_request=True,
)
def drafted_mismatched(batch: ChoiceBatch, plan: Plan) -> Answers:
    """The same of another question of about the same length."""
    return batch.drafted(batch.strangers, plan)


@ROWS.row("identical", "fused, Identical Sharer", needs=_identical)
def identical(batch: ChoiceBatch, plan: Plan) -> Answers:
    """The slice of a bundle whose Sharer is the Receiver's own model."""
    transfer = batch.task.identical
    return batch.fused(transfer, transfer.hear(batch.items))


def background(item: ChoiceItem) -> str:
    """What the Sharer is asked in the paper's text relay: the bare question, for knowledge that helps."""
    return (
        "Which background knowledge helps most to solve this problem? Describe it briefly.\n\n"
        f"{choice_prompt(item, options=False)}"
    )


def with_background(item: ChoiceItem, told: str) -> str:
    """The question of the paper's text relay."""
    return f"Background: {told.strip()}\n\n{choice_prompt(item)}"


def with_answer(item: ChoiceItem, said: str) -> str:
    """The question of the fair text relay: what the Sharer answered to the very same prompt, then the prompt."""
    return f"A larger model answered the question below with: {said.strip()}\n\n{choice_prompt(item)}"
