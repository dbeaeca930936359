"""A model that answers prompts in batches: text, and its preference among letters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fuser.data.choice import LETTERS
from fuser.generate import generate, stop_tokens
from fuser.geometry import window
from fuser.past import Past
from fuser.prompt import Rendered, tokenise


class Side(NamedTuple):
    """A model in evaluation mode and its tokenizer."""

    model: Any
    tokenizer: Any


@dataclass(frozen=True, slots=True)
class Said:
    """An answer. letters: (10,) float32, logits of A to J at its first position. seconds: to generate it, the share
    of its batch."""

    text: str
    letters: Tensor
    seconds: float


@dataclass(frozen=True, slots=True)
class Prefilled:
    """Prompts up to their last token, (1,) int64 each: it is run on top, so it reads what is fused in between."""

    past: Past
    last: list[Tensor]


class Speaker:
    """A side with its budget of new tokens."""

    def __init__(self, side: Side, max_new_tokens: int) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens {max_new_tokens}: expected at least 1")
        self.side = side
        self.stops = stop_tokens(*side)
        self.max_new_tokens = max_new_tokens
        self.window = window(side.model.get_decoder().config)
        self._letters = letter_tokens(side.tokenizer)

    def fits(self, prompt: Rendered) -> bool:
        """Whether a prompt and its answer fit the model's window."""
        return len(self.tokens(prompt)) + self.max_new_tokens <= self.window

    def tokens(self, prompt: Rendered) -> Tensor:
        """(tokens,) int64 of a rendered prompt."""
        return tokenise(self.side.tokenizer, prompt).ids

    def answer(self, prompts: Sequence[Rendered]) -> list[Said]:
        """Answer rendered prompts in one batch; the seconds include reading them."""
        started = time.perf_counter()
        prefilled = prefill_batch(self.side.model, [self.tokens(prompt) for prompt in prompts])
        read = (time.perf_counter() - started) / len(prompts)
        return [Said(said.text, said.letters, said.seconds + read) for said in self.say(prefilled)]

    def say(self, prefilled: Prefilled) -> list[Said]:
        """Answer on top of prefilled prompts."""
        started = time.perf_counter()
        past = prefilled.past.copy()
        generated = generate(self.side.model, past, prefilled.last, self.stops, self.max_new_tokens)
        seconds = (time.perf_counter() - started) / len(prefilled.last)
        first = generated.first
        letters = first[:, self._letters.to(first.device)].amax(2).float().cpu()
        texts = [self.side.tokenizer.decode(ids, skip_special_tokens=True) for ids in generated.tokens]
        return [Said(text, row, seconds) for text, row in zip(texts, letters, strict=True)]


@torch.inference_mode()
def prefill_batch(model: Any, prompts: Sequence[Tensor]) -> Prefilled:
    """Run all but the last token of every prompt (tokens,) int64, no LM head.

    Raises:
        ValueError: a prompt of fewer than two tokens.
    """
    for number, ids in enumerate(prompts):
        if len(ids) < 2:
            raise ValueError(f"prompt {number} has {len(ids)} tokens; at least 2 are needed")
    past = Past.empty(len(prompts), model.device)
    past.run(model, [ids[:-1] for ids in prompts])
    return Prefilled(past, [ids[-1:] for ids in prompts])


def letter_tokens(tokenizer: Any) -> Tensor:
    """Tokens that write each letter, bare and after a blank, (10, 2) int64; one that is no single token is repeated.

    Raises:
        ValueError: a letter that no single token writes.
    """
    rows = []
    for letter in LETTERS:
        written = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (letter, f" {letter}")]
        single = [ids[0] for ids in written if len(ids) == 1]
        if not single:
            raise ValueError(f"this tokenizer has no token for the letter {letter}")
        rows.append((single[0], single[-1]))
    return torch.tensor(rows)
