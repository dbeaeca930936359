"""ModelTurns on one model: whoever has one runs it alone, and the next tokens of several answers are one pass.

A pass has `WIDTH` rows, one for each answer and the rest for none. A matrix product of a fixed number of rows gives a
row the same bits wherever it stands and whatever is beside it; other numbers of rows take other kernels. Attention is
computed for each answer apart, on top of its own past (`fuser/kv/prefill.py`). So an answer is the same alone and
beside others.

Where a pass has one row, as in float32 on CPUs, passes of several answers run at the same time, each on a thread: a
product of one row takes one core.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from fuser.kv.geometry import Geometry
from fuser.kv.past import Past
from fuser.kv.prefill import Prefill, adopt, can_pack, prefill_together
from kvwire.errors import Cancelled, Unsupported

logger = logging.getLogger(__name__)

WIDTH: Final = 4
"""Rows of a pass, and so the answers that go together."""
_COMING_S: Final = 0.005
"""How long a pass waits for answers of the one before: their callers look at what they were given."""


@dataclass(eq=False, slots=True)
class AnswerRow:
    """One answer on its way.

    past: of one row, what it goes on from. cancelled: polled before each layer of a pass.
    """

    past: Past
    cancelled: Callable[[], bool] = lambda: False
    token: int = field(default=0, init=False)
    logits: Tensor | None = field(default=None, init=False)
    failure: Exception | None = field(default=None, init=False)


class ModelTurns:
    """See the module. Thread-safe. A thread that has a turn takes no other, and asks for no token.

    Where passes and turns are waited for, they alternate: long answers keep no question from being read, nor the
    reverse. A model has one of these: two would run it at once.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._layers = Geometry.of(model.config).layers
        self._state = threading.Condition()
        self._taken = False
        self._running = 0  # passes
        self._wanted = 0  # turns
        self._passed = False  # the last one to have the model was a pass
        self._waiting: list[AnswerRow] = []
        self._coming: set[AnswerRow] = set()
        self._handed_out = 0.0

    @cached_property
    def width(self) -> int:
        """Rows of a pass, found out in a turn with short prompts.

        1 where the model computes attention or masks itself, and in float32 on a CPU, which needs 1.7 times as long for
        `WIDTH` rows as for one; in bfloat16 a tenth more.
        """
        model = self.model
        if model.device.type == "cpu" and model.dtype == torch.float32:
            return 1
        attention = model.config._attn_implementation
        try:
            adopt(model)
        except Unsupported:
            model.set_attn_implementation(attention)
            return 1
        return WIDTH if can_pack(model) else 1

    @cached_property
    def lanes(self) -> int:
        """Passes that run at the same time: on a CPU as many as torch has threads, where each is of one row."""
        return torch.get_num_threads() if self.width == 1 and self.model.device.type == "cpu" else 1

    def prepare(self) -> None:
        """Find width and lanes out, where they are not known; some tenths of a second."""
        if "lanes" not in vars(self):
            with self.taken():
                found = self.lanes, self.width
                logger.info("passes for next tokens: %d at a time, of up to %d answers", *found)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a turn and hold it."""
        with self._state:
            self._wanted += 1
            try:
                self._state.wait_for(lambda: self._may_begin(a_pass=False))
            finally:
                self._wanted -= 1
            self._taken, self._passed = True, False
        try:
            yield
        finally:
            self._give_back((), ())

    def read(self, row: AnswerRow, ids: Tensor) -> Tensor:
        """Run tokens (tokens,) int64 on top of an answer's past: one together with those of other answers, more alone.

        Returns:
            (vocabulary,) logits behind the last one.

        Raises:
            Cancelled: `row.cancelled()` became true.
        """
        if len(ids) > 1:
            with self.taken():
                return self._alone(row, ids)
        self.prepare()
        row.token, row.logits, row.failure = int(ids), None, None
        with self._state:
            self._coming.discard(row)
            self._waiting.append(row)
            self._state.notify_all()
        while batch := self._next(row):
            self._run(batch)
        if row.failure is not None:
            raise row.failure
        assert row.logits is not None
        return row.logits

    def leave(self, row: AnswerRow) -> None:
        """An answer is over: no pass waits for it, and none runs it."""
        with self._state:
            self._coming.discard(row)
            if row in self._waiting:
                self._waiting.remove(row)
            self._state.notify_all()

    def _may_begin(self, a_pass: bool) -> bool:
        """There is room beside what runs, and where the other kind is waited for, it was the last to begin."""
        others = self._wanted if a_pass else len(self._waiting)
        room = not self._taken and self._running < (self.lanes if a_pass else 1)
        return room and (self._passed != a_pass or not others)

    def _next(self, row: AnswerRow) -> Sequence[AnswerRow]:
        """The answers whose pass is for this thread to run, with a turn; none once `row` had its own."""
        with self._state:
            while row.logits is None and row.failure is None:
                left_s = self._handed_out + _COMING_S - time.monotonic()
                if not self._waiting or not self._may_begin(a_pass=True):  # none: another thread runs `row`
                    self._state.wait()
                elif left_s > 0 and self._coming and len(self._waiting) < self.width:
                    self._state.wait(left_s)
                else:
                    batch, self._waiting = self._waiting[: self.width], self._waiting[self.width :]
                    self._running += 1
                    self._passed = True
                    return batch
        return ()

    def _run(self, batch: Sequence[AnswerRow]) -> None:
        found: Sequence[Tensor | Exception] = [Cancelled("the pass was broken off")] * len(batch)
        try:
            if self.width == 1:
                (row,) = batch
                found = [self._alone(row, torch.tensor([row.token], device=self.model.device))]
            else:
                found = self._together(batch)
        except Exception as error:  # each caller is told, whichever thread ran the pass
            found = [error] * len(batch)
        finally:
            self._give_back(batch, found)

    def _give_back(self, batch: Sequence[AnswerRow], found: Sequence[Tensor | Exception]) -> None:
        with self._state:
            self._taken = False
            self._running -= bool(batch)
            for row, its in zip(batch, found, strict=True):
                if isinstance(its, Exception):
                    row.failure = its
                else:
                    row.logits = its
            if coming := {row for row in batch if row.failure is None}:
                self._coming, self._handed_out = coming, time.monotonic()
            self._state.notify_all()

    @torch.inference_mode()
    def _alone(self, row: AnswerRow, ids: Tensor) -> Tensor:
        if row.cancelled():
            raise Cancelled("the answer was given up")
        # Two dimensions: a slice of three (`logits_to_keep`) makes torch copy the whole head first, on CPUs.
        logits: Tensor = self.model.get_output_embeddings()(row.past.run(self.model, [ids]))
        return logits[0]

    @torch.inference_mode()
    def _together(self, batch: Sequence[AnswerRow]) -> Sequence[Tensor | Exception]:
        """Of each answer its logits, or what ended it early."""
        device = self.model.device
        works = []
        for row in batch:
            ids, last = torch.tensor([[row.token]], device=device), self._layers - 1
            works.append(Prefill(ids, last, _unused, row.cancelled, whole=True, behind=row.past))
        if missing := WIDTH - len(batch):
            nothing = torch.zeros((1, missing), dtype=torch.int64, device=device)
            works.append(Prefill(nothing, -1, _unused))
        prefill_together(self.model, works)
        works = works[: len(batch)]
        hidden = [work.hidden[0] for work in works if work.hidden is not None]
        padded = pad(torch.cat(hidden), (0, 0, 0, WIDTH - len(hidden))) if hidden else None
        logits = iter(() if padded is None else self.model.get_output_embeddings()(padded))
        return [
            next(logits) if work.hidden is not None else work.failure or Cancelled("the pass was broken off")
            for work in works
        ]


def _unused(layer: int, keys: Tensor, values: Tensor) -> None:
    """K and V of the pass, which lie behind their rows' pasts."""
