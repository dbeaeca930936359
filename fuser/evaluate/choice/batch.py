"""A batch of multiple-choice questions: what several rows share is computed once, when a row first needs it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from fuser.bundle import Bundle
from fuser.data.choice import ChoiceItem, choice_prompt
from fuser.evaluate.choice.prompts import sections
from fuser.evaluate.choice.slices import Heard, SharerSlices, fuse_batch
from fuser.evaluate.speaker import Prefilled, Said, Speaker, prefill_batch
from fuser.prompt import RECEIVER_HOLDS, PromptStyle, Tokens, render, tokenise
from fuser.rope import Rope
from fuser.shared import SharedPositions, shared_positions


class Transfer:
    """One way for a slice to reach the Receiver: a bundle, and the slices of its Sharer."""

    def __init__(self, bundle: Bundle, slices: SharerSlices, receiver: Speaker) -> None:
        self.style = bundle.config.receiver_prompt
        self._head = bundle.require_fuse().to(receiver.side.model.device)
        self._rope = Rope(receiver.side.model)
        self._slices = slices

    def hear(self, items: Sequence[ChoiceItem]) -> list[Heard]:
        """What the Sharer makes of each question."""
        return self._slices.hear([sections(choice_prompt(item)) for item in items])

    @torch.inference_mode()
    def fuse(self, reading: Reading, heard: Sequence[Heard]) -> Prefilled:
        """The Receiver's reading with a slice a question fused in."""
        return fuse_batch(self._head, self._rope, reading.prefilled, reading.shared, heard)


class Reading:
    """The Receiver's own reading of some questions, in one prompt style."""

    def __init__(self, speaker: Speaker, style: PromptStyle, items: Sequence[ChoiceItem]) -> None:
        self._speaker = speaker
        prompts = [tokens_of(speaker, style, item) for item in items]
        started = time.perf_counter()
        self.prefilled = prefill_batch(speaker.side.model, [tokens.ids for tokens, _ in prompts])
        self.seconds = (time.perf_counter() - started) / len(items)
        self.shared = [shared for _, shared in prompts]

    @cached_property
    def said(self) -> list[Said]:
        """The Receiver's own answers."""
        return self._speaker.say(self.prefilled)


def tokens_of(speaker: Speaker, style: PromptStyle, item: ChoiceItem) -> tuple[Tokens, SharedPositions]:
    """A question's prompt as the Receiver tokenises it, and the positions of its shared section that are fused."""
    asked = sections(choice_prompt(item))
    rendered = render(asked, style, RECEIVER_HOLDS)
    tokens = tokenise(speaker.side.tokenizer, rendered)
    return tokens, shared_positions(tokens.offsets, asked, rendered.spans).fused(len(tokens.ids))


def bucketed(lengths: Sequence[int], batch: int, max_tokens: int = 16_384) -> list[list[int]]:
    """Indices in batches of like length, shortest first; smaller ones where padded tokens would pass the limit."""
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        last = found[-1] if found else []
        if not last or len(last) >= batch or (len(last) + 1) * lengths[index] > max_tokens:
            found.append([])
        found[-1].append(index)
    return found


def strangers(items: Sequence[ChoiceItem], order: Sequence[int]) -> list[int]:
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
