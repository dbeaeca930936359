"""A batch of multiple-choice questions: what several rows share is computed once, when a row first needs it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from fuser.data.choice import ChoiceItem, choice_prompt
from fuser.evaluate.choice.prompts import sections
from fuser.evaluate.choice.slices import Heard, SharerSlices
from fuser.evaluate.speaker import Said
from fuser.receiver import Draft, Receiver
from kvwire.segment import SliceKind


class Transfer:
    """A Sharer's slices, and the Receiver that takes them in."""

    def __init__(self, slices: SharerSlices, receiver: Receiver) -> None:
        self._slices, self.receiver = slices, receiver

    def hear(self, items: Sequence[ChoiceItem]) -> list[Heard]:
        """What the Sharer makes of each question."""
        return self._slices.hear([sections(choice_prompt(item)) for item in items])


class Reading:
    """The Receiver's own reading of some questions, all but their prompts' last tokens."""

    def __init__(self, receiver: Receiver, items: Sequence[ChoiceItem]) -> None:
        begun = receiver.begin(*(sections(choice_prompt(item)) for item in items))
        started = time.perf_counter()
        with torch.inference_mode():
            self._draft = begun.prefill(SliceKind.SHARED)
        self.seconds = (time.perf_counter() - started) / len(items)

    def draft(self) -> Draft:
        """What was read, to fuse slices into or to answer from."""
        return self._draft.copy()


def bucketed(lengths: Sequence[int], batch: int, max_tokens: int = 16_384) -> list[list[int]]:
    """Indices in batches of like length, shortest first; smaller ones where padded tokens would pass the limit."""
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        last = found[-1] if found else []
        if not last or len(last) >= batch or (len(last) + 1) * lengths[index] > max_tokens:
            found.append([])
        found[-1].append(index)
    return found


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


def letter_logits(said: Sequence[Said]) -> Tensor:
    """(answers, 10) float32."""
    return torch.stack([one.letters for one in said])
