"""A model that answers prompts in batches: text, and its preference among letters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fuser.kv.generate import generate, stop_tokens
from fuser.kv.geometry import window
from fuser.kv.past import Past
from fuser.prompts.choice import LETTERS
from fuser.prompts.prompt import Rendered, tokenise


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
        past = Past.empty(len(prompts), self.side.model.device)
        return self.say(past, [self.tokens(prompt) for prompt in prompts])

    def say(self, past: Past, rest: Sequence[Tensor]) -> list[Said]:
        """Answer once the rest of each prompt, (tokens,) int64, is run on top of a past, which is used up."""
        started = time.perf_counter()
        generated = generate(self.side.model, past, rest, self.stops, self.max_new_tokens)
        seconds = (time.perf_counter() - started) / len(rest)
        first = generated.first
        letters = first[:, self._letters.to(first.device)].amax(2).float().cpu()
        texts = [self.side.tokenizer.decode(ids, skip_special_tokens=True) for ids in generated.tokens]
        return [Said(text, row, seconds) for text, row in zip(texts, letters, strict=True)]


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
    return torch.tensor(rows, device="cpu")
