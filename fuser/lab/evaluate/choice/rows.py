"""The rows of a multiple-choice table: how each one answers a batch of questions.

What rows share is computed once a batch, when a row first needs it: the Sharer's reading and answer, the Receiver's
reading. What a row adds is what is fused in between, or which text stands before the question.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from torch import Tensor

from fuser.lab.evaluate.choice.batch import Reading, Transfer, letter_logits
from fuser.lab.evaluate.choice.fit import confidence, masked
from fuser.lab.evaluate.choice.mark import letter_said
from fuser.lab.evaluate.choice.prompts import Asker, background, with_answer, with_background, with_examples
from fuser.lab.evaluate.choice.sent import SentSlices
from fuser.lab.evaluate.choice.slices import Heard, fuse_heard
from fuser.lab.evaluate.rows import Row
from fuser.lab.evaluate.speaker import Said, Speaker
from fuser.prompts.choice import ChoiceItem, choice_prompt
from fuser.prompts.prompt import Rendered
from fuser.receiver import Receiver
from kvwire.plan import WHOLE, Plan

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """A row's answer before it is marked. seconds: all that one answer of this row takes, from reading to its last
    token, on both sides. bytes: payload from the cloud."""

    said: Said
    seconds: float
    bytes: int = 0


@dataclass(slots=True)
class Pair:
    """What the rows answer with. A part that is None belongs to rows that are not asked for.

    background: the Sharer with the budget of the paper's relay. transfer: slices of the Sharer; own: slices of the
    Receiver itself. examples: training questions for the few-shot prompt. bias and threshold: what was fitted. counts:
    questions by "asked" and "routed", and by "shots N", for the table's notes. sent: slices by a plan. service: the
    Receiver as it takes slices in.
    """

    receiver: Asker
    service: Receiver
    sharer: Asker | None = None
    background: Speaker | None = None
    transfer: Transfer | None = None
    own: Transfer | None = None
    examples: Sequence[ChoiceItem] = ()
    bias: Tensor | None = None
    threshold: float | None = None
    counts: Counter[str] = field(default_factory=Counter)
    sent: SentSlices | None = None


class BatchRows:
    """Answers to one batch of questions.

    Args:
        others: for each item the one whose slice it gets in the mismatched row.
    """

    def __init__(self, pair: Pair, items: Sequence[ChoiceItem], others: Sequence[ChoiceItem]) -> None:
        self._pair, self._items, self._others = pair, items, others

    def answers(self, row: Row) -> list[Answer]:
        """One answer an item, in order."""
        if row.plan != WHOLE:
            return self._sent(row.plan, mismatched=row.kind == "mismatched")
        kinds: dict[str, Callable[[], list[Answer]]] = {
            "receiver": lambda: self._receiver,
            "calibrated": self._calibrated,
            "sharer": lambda: self._sharer,
            "relay-paper": self._relay_paper,
            "relay-fair": self._relay_fair,
            "routing": self._routing,
            "few-shot": self._few_shot,
            "fused": lambda: self._fused(self._reading, self._heard),
            "mismatched": self._mismatched,
            "identical": self._identical,
        }
        return kinds[row.kind]()

    @cached_property
    def _reading(self) -> Reading:
        return Reading(self._pair.service, self._items)

    @cached_property
    def _heard(self) -> list[Heard]:
        return _there(self._pair.transfer).hear(self._items)

    @cached_property
    def _receiver(self) -> list[Answer]:
        draft = self._reading.draft()
        answers = self._pair.receiver.speaker.say(draft.past, draft.rest)
        return [Answer(said, self._reading.seconds + said.seconds) for said in answers]

    @cached_property
    def _sharer(self) -> list[Answer]:
        if self._pair.transfer is not None:
            return [Answer(h.said, h.seconds + h.said.seconds, _size(h.said.text)) for h in self._heard]
        asker = _there(self._pair.sharer)
        said = asker.speaker.answer([asker.prompt(choice_prompt(item)) for item in self._items])
        return [Answer(one, one.seconds, _size(one.text)) for one in said]

    def _calibrated(self) -> list[Answer]:
        bias = _there(self._pair.bias)
        return [
            Answer(letter_said(item, answer.said.letters + bias), answer.seconds)
            for item, answer in zip(self._items, self._receiver, strict=True)
        ]

    def _relay_paper(self) -> list[Answer]:
        """Stage one: background from the Sharer, which sees no options. Stage two: the Receiver, with it."""
        ask = _there(self._pair.sharer).prompt
        told = _there(self._pair.background).answer([ask(background(item)) for item in self._items])
        return self._after([Answer(one, one.seconds, _size(one.text)) for one in told], with_background)

    def _relay_fair(self) -> list[Answer]:
        """The Sharer answers the very prompt that the slice is cut from, within the same budget."""
        return self._after(self._sharer, with_answer)

    def _after(self, told: Sequence[Answer], before: Callable[[ChoiceItem, str], str]) -> list[Answer]:
        """The Receiver's answers with the Sharer's text before it; both sides' seconds, the text's bytes."""
        prompts = [self._told(i, a.said.text, before) for i, a in zip(self._items, told, strict=True)]
        answers = self._ask(self._pair.receiver.speaker, prompts)
        return [
            Answer(mine.said, mine.seconds + theirs.seconds, theirs.bytes)
            for mine, theirs in zip(answers, told, strict=True)
        ]

    def _told(self, item: ChoiceItem, text: str, before: Callable[[ChoiceItem, str], str]) -> Rendered:
        """The prompt with the Sharer's text before it, of which as much is kept as fits the window."""
        receiver = self._pair.receiver
        prompt = receiver.prompt(before(item, text))
        while text and not receiver.speaker.fits(prompt):
            text = text[: len(text) // 2]
            prompt = receiver.prompt(before(item, text))
        return prompt

    def _routing(self) -> list[Answer]:
        """The Sharer's answer where the Receiver, which is asked first, is less confident than the threshold."""
        counts, answers = self._pair.counts, []
        choices = [len(item.choices) for item in self._items]
        sure = confidence(masked(letter_logits([a.said for a in self._receiver]), choices)).tolist()
        for certain, mine, theirs in zip(sure, self._receiver, self._sharer, strict=True):
            routed = certain < _there(self._pair.threshold)
            counts["routed"] += routed
            counts["asked"] += 1
            answers.append(
                Answer(theirs.said, mine.seconds + theirs.seconds, theirs.bytes) if routed else mine
            )
        return answers

    def _few_shot(self) -> list[Answer]:
        return self._ask(self._pair.receiver.speaker, [self._with_examples(item) for item in self._items])

    def _with_examples(self, item: ChoiceItem) -> Rendered:
        """The prompt with as many examples as fit the window."""
        receiver, shown = self._pair.receiver, list(self._pair.examples)
        while shown and not receiver.speaker.fits(receiver.prompt(with_examples(item, shown))):
            shown.pop()
        self._pair.counts[f"shots {len(shown)}"] += 1
        return receiver.prompt(with_examples(item, shown))

    def _mismatched(self) -> list[Answer]:
        return self._fused(self._reading, _there(self._pair.transfer).hear(self._others))

    def _sent(self, plan: Plan, mismatched: bool) -> list[Answer]:
        """Answers behind slices by a plan; seconds of encoding and decoding included."""
        slices, speaker = _there(self._pair.sent), self._pair.receiver.speaker
        heard = _there(self._pair.transfer).hear(self._others) if mismatched else self._heard
        answers = []
        for item, one in zip(self._items, heard, strict=True):
            started = time.perf_counter()
            draft, size = slices.draft(item, one, plan)
            seconds = time.perf_counter() - started + one.seconds
            (said,) = speaker.say(draft.past, draft.rest)
            answers.append(Answer(said, seconds + said.seconds, size))
        return answers

    def _identical(self) -> list[Answer]:
        own = _there(self._pair.own)
        return self._fused(Reading(own.receiver, self._items), own.hear(self._items))

    def _fused(self, reading: Reading, heard: Sequence[Heard]) -> list[Answer]:
        started = time.perf_counter()
        draft = reading.draft()
        fuse_heard(draft, heard)
        fusing = (time.perf_counter() - started) / len(heard)
        answers = self._pair.receiver.speaker.say(draft.past, draft.rest)
        return [
            Answer(said, one.seconds + reading.seconds + fusing + said.seconds, one.bytes)
            for said, one in zip(answers, heard, strict=True)
        ]

    def _ask(self, speaker: Speaker, prompts: Sequence[Rendered]) -> list[Answer]:
        for item, prompt in zip(self._items, prompts, strict=True):
            if not speaker.fits(prompt):
                raise ValueError(
                    f"question {item.id}: the prompt does not fit the window of {speaker.window}"
                )
        return [Answer(said, said.seconds) for said in speaker.answer(prompts)]


def _size(text: str) -> int:
    return len(text.encode())


def _there(part: T | None) -> T:
    """A part that the row needs; `ChoiceEvaluation.refuse` has seen to it."""
    assert part is not None
    return part
