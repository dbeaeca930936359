"""What the Receiver says in each of its rows, in batches.

Every row answers the same questions with the same budget and the same learnt prefix; what differs is what the
Receiver has before its question (`Before`). So rows pair up question by question.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from fuser.lab.evaluate.line import first_line, line_ended
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.lab.evaluate.relay import ANSWER_TOKENS
from fuser.lab.evaluate.slices import Slices
from fuser.prompts.prompt import withheld
from fuser.receiver import Receiver
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind


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
    """The Receiver, asked in batches of like length. batch: questions at once."""

    def __init__(self, receiver: Receiver, batch: int) -> None:
        self._receiver = receiver
        self._batch = batch

    def ask(
        self,
        questions: Sequence[DocumentQuestion],
        before: Sequence[Before],
        slices: Slices | None = None,
    ) -> Iterator[dict[int, Said]]:
        """Answers by place among the questions, a batch at a time. `slices` gives those named in `before`."""
        prompts = [receiver_sections(b.text, q.question) for q, b in zip(questions, before, strict=True)]
        lengths = [sum(len(section.text or "") for section in prompt) for prompt in prompts]
        counts = [0 if b.slice_of is None or slices is None else slices.count(b.slice_of) for b in before]
        order = sorted(range(len(questions)), key=lambda i: (counts[i], lengths[i]))
        for batch in _runs(order, counts, self._batch):
            began = time.perf_counter()
            sent, tokenizer = [0] * len(batch), self._receiver.tokenizer
            with torch.inference_mode():
                draft = self._receiver.begin(*(prompts[i] for i in batch)).prefill(SliceKind.EXCERPT)
                named = [at for i in batch if (at := before[i].slice_of) is not None]
                if named and slices is not None:
                    taken, sent = slices.take(named)
                    draft.put(taken)
            said = draft.answers(ANSWER_TOKENS, line_ended(tokenizer), confident=True)
            texts = [first_line(tokenizer.decode(s, skip_special_tokens=True)) for s in said.tokens]
            each = (time.perf_counter() - began) / len(batch)
            found = zip(batch, texts, said.confidence, sent, strict=True)
            yield {i: Said(text, sure, each, size) for i, text, sure, size in found}


def receiver_sections(text: str, question: str) -> tuple[Section, Section]:
    """A question with `text` where a document stands; an empty one is withheld."""
    document, asked = withheld(question)
    return (Section(Role.DOCUMENT, Visibility.SHARED, text=text) if text else document), asked


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
