"""What the Receiver says in each of its rows, in batches.

Every row answers the same questions with the same budget and the same learnt prefix; what differs is what the
Receiver has before its question (`Before`). So rows pair up question by question.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fuser.evaluate.line import first_line, line_ended
from fuser.evaluate.questions import DocumentQuestion
from fuser.evaluate.relay import ANSWER_TOKENS
from fuser.evaluate.slices import Slices
from fuser.generate import Generated, generate, stop_tokens
from fuser.past import Past
from fuser.prompt import RECEIVER_HOLDS, PromptStyle, render, tokenise
from fuser.train.reading import WITHHELD, Reading
from kvwire.section import Role, Section, Visibility


@dataclass(frozen=True, slots=True)
class Before:
    """What the Receiver has before a question: text, or the slice that was cut for the question `slice_of`.

    bytes: payload of the text from cloud to edge. seconds: the Sharer's work for it.
    """

    text: str = ""
    slice_of: int | None = None
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: its first line; `confidence`, the mean probability of its tokens; seconds to take what stands before
    the question and to answer it; payload bytes of the slice."""

    text: str
    confidence: float
    seconds: float
    bytes: int


class Asker:
    """The Receiver, asked in batches of like length.

    Args:
        model: the Receiver.
        prefix: the bundle's learnt prefix (positions, width), which stands before all else; None where it has none.
        batch: questions at once.

    Attributes:
        reading: of the model, in the given style. prefix: as given; of no positions where there is none.
    """

    def __init__(
        self, model: Any, tokenizer: Any, style: PromptStyle, prefix: Tensor | None, batch: int
    ) -> None:
        self._tokenizer = tokenizer
        self._style = style
        self.reading = Reading(model, tokenizer, style, "")
        self._stops = stop_tokens(model, tokenizer)
        self._ended = line_ended(tokenizer)
        width = self.reading.geometry.width
        self.prefix = torch.zeros(0, width) if prefix is None else prefix.detach()
        self._batch = batch

    def ask(
        self,
        questions: Sequence[DocumentQuestion],
        before: Sequence[Before],
        slices: Slices | None = None,
    ) -> Iterator[dict[int, Said]]:
        """Answers by place among the questions, a batch at a time. `slices` gives those named in `before`."""
        head = len(self.reading.head)
        prompts = [
            receiver_prompt(self._tokenizer, self._style, b.text, q.question)[head:]
            for q, b in zip(questions, before, strict=True)
        ]
        counts = [0 if b.slice_of is None or slices is None else slices.count(b.slice_of) for b in before]
        order = sorted(range(len(questions)), key=lambda i: (counts[i], len(prompts[i])))
        for batch in _runs(order, counts, self._batch):
            began = time.perf_counter()
            flat, sent = self.prefix[None].expand(len(batch), -1, -1), [0] * len(batch)
            named = [at for i in batch if (at := before[i].slice_of) is not None]
            if named and slices is not None:
                taken, sent = slices.take(named)
                flat = torch.cat((flat, taken), dim=1)
            said = self._generate(flat, [prompts[i] for i in batch])
            texts = [first_line(self._tokenizer.decode(s, skip_special_tokens=True)) for s in said.tokens]
            each = (time.perf_counter() - began) / len(batch)
            found = zip(batch, texts, said.confidence, sent, strict=True)
            yield {i: Said(text, sure, each, size) for i, text, sure, size in found}

    def _generate(self, flat: Tensor, prompts: list[Tensor]) -> Generated:
        with torch.inference_mode():
            past = Past.of(self.reading.cache(flat), self.reading.device)
        model, ended = self.reading.model, self._ended
        return generate(model, past, prompts, self._stops, ANSWER_TOKENS, ended, confident=True)


def receiver_prompt(tokenizer: Any, style: PromptStyle, text: str, question: str) -> Tensor:
    """Ids of a question's prompt, tokenised whole, with `text` where a document stands; an empty one is withheld."""
    document = Section(Role.DOCUMENT, Visibility.SHARED, text=text) if text else WITHHELD
    sections = (document, Section(Role.QUESTION, Visibility.SHARED, text=question))
    return tokenise(tokenizer, render(sections, style, RECEIVER_HOLDS)).ids


def _runs(order: Sequence[int], counts: Sequence[int], batch: int) -> Iterator[list[int]]:
    """Batches of questions with slices of one length, in the given order."""
    run: list[int] = []
    for index in order:
        if run and (len(run) == batch or counts[index] != counts[run[0]]):
            yield run
            run = []
        run.append(index)
    if run:
        yield run
