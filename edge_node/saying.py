"""What the Receiver says once its prompt is read: what it generates, one of the choices, or what the notes hold."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from edge_node.answer import FirstLine
from edge_node.ask import Planned
from kvwire.errors import Cancelled
from kvwire.segment import UNTOLD, SliceTrailer

if TYPE_CHECKING:
    from fuser import ConfidenceConfig, Prefilled, Receiver, Signals

logger = logging.getLogger(__name__)


class Steps:
    """The steps of a Receiver for one question, each in its turn among other questions', until `closed` is set."""

    def __init__(self, receiver: Receiver) -> None:
        self.closed = threading.Event()
        self._receiver = receiver

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Around one step. Raises Cancelled where the question was closed meanwhile."""
        with self._receiver.turns.taken():
            self.check()
            yield

    def check(self) -> None:
        """Raises Cancelled where the question was closed."""
        if self.closed.is_set():
            raise Cancelled("the stream was closed")


class Saying:
    """The pieces of one answer, and what is known of it once they have all come.

    choice: which of the choices it is, where these were compared. tokens: generated, of all attempts. cut: the limit
    ended it. from_notes: it stands in the notes, as the slice holds none. withheld: what was said is too unlikely to be
    right. least: the confidence that it has to have; 0 withholds nothing.
    """

    def __init__(self, receiver: Receiver, steps: Steps) -> None:
        self._receiver, self._steps = receiver, steps
        self._judge: ConfidenceConfig | None = None
        self._signals: Signals | None = None
        self._stops: Sequence[str] = ()
        self.choice: int | None = None
        self.tokens = 0
        self.least = 0.0
        self.cut = self.from_notes = self.withheld = False

    @property
    def confidence(self) -> float | None:
        """How likely what the Receiver has said behind the slice is right; None where nothing tells."""
        signals = {} if self._signals is None else self._signals.values
        return self._judge.of(signals) if self._judge is not None and signals else None

    def pieces(
        self,
        planned: Planned,
        prefilled: Prefilled,
        trailer: SliceTrailer | None,
        noted: Callable[[], Prefilled] | None,
    ) -> Iterator[str]:
        """What belongs to the answer, as it comes.

        Args:
            trailer: of the slice that the prompt has, if any.
            noted: makes the prompt with the notes, where they are not read beside the slice.
        """
        if planned.among:
            with self._steps.taken():
                likely = prefilled.likelihoods(planned.among)
            self.choice = likely.index(max(likely))
            yield planned.among[self.choice]
            return
        config, self._stops = self._receiver.bundle.config, planned.ask.stop
        limit = min(planned.max_new_tokens, prefilled.room)
        if trailer is not None and planned.kind is not None:
            self._judge = config.confidence.get(planned.kind)
        if self._judge is not None:
            own = planned.least_confidence
            self.least = self._judge.least_confidence if own is None else own
        if trailer is None or (noted is None and not self.least):
            yield from self._limited(self._generated(planned, prefilled, limit), limit)
            self._see(prefilled, trailer)
            return
        # The caller's limits must not hide whether it abstains, so they wait until that is known; and where an answer
        # may be withheld, nothing of it is given before all of it is there.
        abstain = config.abstain
        generated = self._generated(planned, prefilled, max(limit, self._tokens_of(abstain)))
        held: list[tuple[str | None, int]] = []
        text, line = "", FirstLine()
        while not line.ended and (self.least or abstain.startswith(text)):
            held.append(next(generated))
            piece, _ = held[-1]
            text += line.rest() if piece is None else line.add(piece)
        self._see(prefilled, trailer)
        if self._judge is not None:
            if self.least and self.confidence is None:
                logger.warning(
                    "the cloud does not tell what this bundle's confidence needs: nothing is withheld"
                )
            self.withheld = text != abstain and self._judge.withholds(prefilled.signals.values, self.least)
        if text != abstain and not self.withheld:
            yield from self._limited(itertools.chain(held, generated), limit)
            return
        self.tokens = len(prefilled.tokens)
        yield (self._answer_of_notes(planned, noted()) if noted is not None else "") or abstain

    def _see(self, prefilled: Prefilled, trailer: SliceTrailer | None) -> None:
        """Keep what tells how likely what was said behind the slice is right."""
        self._signals = prefilled.signals
        self._signals.sharer = UNTOLD if trailer is None else trailer.certainty

    def _answer_of_notes(self, planned: Planned, prefilled: Prefilled) -> str:
        """What the Receiver answers from the notes where it abstains behind the slice; empty where they say nothing."""
        before = self.tokens
        limit = min(planned.max_new_tokens, prefilled.room)
        answer = "".join(self._limited(self._generated(planned, prefilled, limit), limit))
        self.tokens += before
        # Without a slice the Receiver never abstains: what does not stand in the notes it has made up.
        self.from_notes = _stands_in(answer, [section.text or "" for section in planned.noted])
        self.cut = self.cut and self.from_notes
        return answer if self.from_notes else ""

    def _tokens_of(self, abstain: str) -> int:
        """Tokens that tell whether the Receiver says this text and no more."""
        with self._steps.taken():
            return len(self._receiver.tokenizer(f" {abstain}", add_special_tokens=False).input_ids) + 1

    def _generated(
        self, planned: Planned, prefilled: Prefilled, limit: int
    ) -> Generator[tuple[str | None, int], None, None]:
        """What the Receiver says, each piece with the tokens so far, and None at the end."""
        generated = prefilled.generate(limit, planned.choose, self._steps.closed.is_set)
        piece: str | None = ""
        while piece is not None:
            piece = next(generated, None)
            self._steps.check()  # also behind the last token, where generation asks no more
            yield piece, len(prefilled.tokens)

    def _limited(self, generated: Iterator[tuple[str | None, int]], limit: int) -> Iterator[str]:
        """The pieces that belong to the answer, of no more tokens than `limit`."""
        line, self.cut = FirstLine(self._stops), False
        while not line.ended:
            piece, tokens = next(generated)
            piece = piece if tokens <= limit else None
            self.tokens = min(tokens, limit)
            if piece is None:
                self.cut = tokens >= limit
            if said := line.rest() if piece is None else line.add(piece):
                yield said


def _stands_in(answer: str, notes: Sequence[str]) -> bool:
    said = answer.casefold().rstrip(".")
    return bool(said) and any(said in note.casefold() for note in notes)
