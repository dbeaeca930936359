"""A model that answers questions with choices in batches: text, and its preference among letters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fuser.kv.generate import generate, stop_tokens
from fuser.kv.past import Past
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.rows import RowAnswer
from fuser.prompts.choice import LETTERS
from fuser.prompts.prompt import RECEIVER_HOLDS, PromptStyle, render, tokenise
from kvwire.section import Role, Section, Visibility


def sections(text: str) -> tuple[Section, ...]:
    """The one shared section that asks a question: the slice is cut from it, and the Receiver reads it."""
    return (Section(Role.QUESTION, Visibility.SHARED, text=text),)


class Speaker:
    """A model with its prompt style and its budget of new tokens."""

    def __init__(self, model: Model, style: PromptStyle, max_new_tokens: int) -> None:
        self.model, self.style, self.max_new_tokens = model, style, max_new_tokens

    def tokens(self, text: str) -> Tensor:
        """(tokens,) int64 of the prompt that asks a text."""
        return tokenise(self.model.tokenizer, render(sections(text), self.style, RECEIVER_HOLDS)).ids

    def fits(self, text: str) -> bool:
        """Whether its prompt and an answer fit the model's window."""
        return len(self.tokens(text)) + self.max_new_tokens <= self.model.window

    def answer(self, texts: Sequence[str]) -> list[RowAnswer]:
        """Answers in one batch; the seconds include reading."""
        past = Past.empty(len(texts), self.model.network.device)
        return self.say(past, [self.tokens(text) for text in texts])

    def say(self, past: Past, rest: Sequence[Tensor]) -> list[RowAnswer]:
        """Answers once the rest of each prompt, (tokens,) int64, is run on top of a past, which is used up."""
        started = time.perf_counter()
        model, tokenizer = self.model.network, self.model.tokenizer
        generated = generate(model, past, rest, stop_tokens(model, tokenizer), self.max_new_tokens)
        seconds = (time.perf_counter() - started) / len(rest)
        first = generated.first
        letters = first[:, self._letters.to(first.device)].amax(2).float().cpu()
        texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in generated.tokens]
        return [RowAnswer(text, seconds, letters=row) for text, row in zip(texts, letters, strict=True)]

    @cached_property
    def _letters(self) -> Tensor:
        return letter_tokens(self.model.tokenizer)


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
