"""Shared slices in a profile: read once by the Sharer, sent by each plan, fused by the Receiver of the service"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from rich.progress import Progress

from fuser.bundle import Bundle
from fuser.data.choice import ChoiceItem, choice_answer, choice_prompt, named
from fuser.evaluate.choice.batch import bucketed, mismatched
from fuser.evaluate.choice.prompts import sections
from fuser.evaluate.choice.sent import SentSlices
from fuser.evaluate.choice.slices import Heard, SharerSlices
from fuser.evaluate.deadline import Deadline
from fuser.evaluate.models import Model
from fuser.evaluate.prediction import Prediction
from fuser.evaluate.speaker import Side
from fuser.profile.rows import Row, Screened
from fuser.receiver import Draft, Receiver
from fuser.train.reading import reply_ids
from kvwire.plan import Plan
from kvwire.segment import SliceKind

ANSWER_TOKENS = 16
_AT_ONCE = 8  # prompts that the Sharer reads together


class SharedProfile:
    """A `fuser.profile.rows.Profiled` of questions with choices, which both sides read.

    One question at a time: what a plan leaves out is the business of the service's own Receiver.

    Args:
        slices: directory for what the Sharer reads.

    Raises:
        Unsupported: the bundle makes no shared slices.
        ValueError: all items ask the same question, so that none can be mismatched.
    """

    kind = SliceKind.SHARED
    metric = "exact_match"

    def __init__(
        self, bundle: Bundle, sharer: Model, receiver: Model, items: Sequence[ChoiceItem], slices: Path
    ) -> None:
        bundle.require_fuse()
        self._bundle = bundle
        self._models = sharer, receiver
        self._items, self._folder = tuple(items), slices
        lengths = [len(choice_prompt(item)) for item in items]
        order = [index for batch in bucketed(lengths, _AT_ONCE) for index in batch]
        self._mismatched = mismatched(self._items, order)
        self._heard = lru_cache(maxsize=4)(self._load)

    @property
    def questions(self) -> list[str]:
        """As in `Profiled`."""
        return [item.id for item in self._items]

    @property
    def groups(self) -> dict[str, str]:
        """As in `Profiled`."""
        return {item.id: item.context or item.question for item in self._items}

    def read(self, progress: Progress, deadline: Deadline) -> None:
        """As in `Profiled`."""
        task = progress.add_task("reading with the Sharer", total=len(self._items))
        for start in range(0, len(self._items), _AT_ONCE):
            some = self._items[start : start + _AT_ONCE]
            self._slices.hear([sections(choice_prompt(item)) for item in some])
            progress.advance(task, len(some))
            deadline.check()

    def screen(self, plan: Plan, count: int) -> Screened:
        """As in `Profiled`."""
        picked = range(min(count, len(self._items)))
        end = int(self._receiver.tokenizer.eos_token_id)
        loss = size = 0.0
        for index in picked:
            item = self._items[index]
            draft, sent = self._fused(index, plan, index)
            prompt = draft.prompts[0].rendered
            reply = reply_ids(self._receiver.tokenizer, prompt, choice_answer(item), end)
            with torch.inference_mode():
                loss += float(draft.loss([reply]).loss)
            size += sent
        return Screened(plan, loss / len(picked), size / len(picked), len(picked))

    def rivals(self, plans: Sequence[Plan]) -> list[Row]:
        """The Receiver alone: both sides have the text."""
        return [Row("receiver")]

    def answers(self, row: Row, todo: Sequence[int]) -> Iterator[list[Prediction]]:
        """As in `Profiled`."""
        for index in todo:
            item, size = self._items[index], 0
            if row.plan is None:
                draft = self._receiver.begin(sections(choice_prompt(item))).prefill(SliceKind.SHARED)
            else:
                draft, size = self._fused(
                    index, row.plan, self._mismatched[index] if row.mismatched else index
                )
            text = "".join(draft.generate(ANSWER_TOKENS)).strip()
            right = {self.metric: float(named(text, item.letters) == item.letter)}
            yield [Prediction(row.name, item.id, text, right, bytes=size)]

    def cap_bytes(self, plan: Plan) -> int:
        """As in `Profiled`."""
        return self._sent.most_bytes(map(self._heard, range(len(self._items))), plan)

    def _fused(self, index: int, plan: Plan, source: int) -> tuple[Draft, int]:
        """A draft of a question, prefilled and fused with the slice of `source`; and the slice's payload bytes."""
        return self._sent.draft(self._items[index], self._heard(source), plan)

    def _load(self, index: int) -> Heard:
        return self._slices.hear([sections(choice_prompt(self._items[index]))])[0]

    @cached_property
    def _slices(self) -> SharerSlices:
        sharer, _ = self._models
        return SharerSlices(self._bundle, Side(sharer.network, sharer.tokenizer), 1, self._folder)

    @cached_property
    def _receiver(self) -> Receiver:
        _, receiver = self._models
        return Receiver(receiver.network, receiver.tokenizer, self._bundle)

    @cached_property
    def _sent(self) -> SentSlices:
        return SentSlices(self._bundle, self._receiver)
