"""Turns on one model: whoever has one runs it alone, and the next tokens of several answers are one pass.

A pass has `WIDTH` rows, one for each answer and the rest for none. A matrix product of a fixed number of rows gives a
row the same bits wherever it stands and whatever is beside it; other numbers of rows take other kernels. Attention is
computed for each answer apart, on top of its own past (`fuser/kv/prefill.py`). So an answer is the same alone and
beside others.
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

from fuser.kv.past import Past
from fuser.kv.prefill import Prefill, adopt, can_pack, prefill_together
from kvwire.errors import Cancelled, Unsupported

logger = logging.getLogger(__name__)

WIDTH: Final = 4
"""Rows of a pass, and so the answers that go together."""
_COMING_S: Final = 0.005
"""How long a pass waits for answers of the one before: their callers look at what they were given."""


@dataclass(eq=False, slots=True)
class Row:
    """One answer on its way.

    past: of one row, what it goes on from. cancelled: polled before each layer of a pass.
    """

    past: Past
    cancelled: Callable[[], bool] = lambda: False
    token: int = field(default=0, init=False)
    logits: Tensor | None = field(default=None, init=False)
    failure: Exception | None = field(default=None, init=False)


class Turns:
    """See the module. Thread-safe. A thread that has a turn takes no other, and asks for no token."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._state = threading.Condition()
        self._taken = False
        self._waiting: list[Row] = []
        self._coming: set[Row] = set()
        self._handed_out = 0.0

    @cached_property
    def width(self) -> int:
        """Rows of a pass, found out in a turn with short prompts.

        1 where more gain nothing, or the model computes attention or masks itself. In float32 a CPU needs half as long
        again for `WIDTH` rows as for one, in bfloat16 a tenth more.
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

    def prepare(self) -> None:
        """Find the width out now rather than in the first answer."""
        with self.taken():
            width = self.width
        logger.info("the next tokens of up to %d answers are one pass", width)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a turn and hold it."""
        with self._state:
            self._state.wait_for(lambda: not self._taken)
            self._taken = True
        try:
            yield
        finally:
            self._give_back(())

    def read(self, row: Row, ids: Tensor) -> Tensor:
        """Run tokens (tokens,) int64 on top of an answer's past: one together with those of other answers, more alone.

        Returns:
            (vocabulary,) logits behind the last one.

        Raises:
            Cancelled: `row.cancelled()` became true.
        """
        if len(ids) > 1:
            with self.taken():
                return self._alone(row, ids)
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

    def leave(self, row: Row) -> None:
        """An answer is over: no pass waits for it."""
        with self._state:
            self._coming.discard(row)
            self._state.notify_all()

    def _next(self, row: Row) -> Sequence[Row]:
        """The answers whose pass is for this thread to run, with a turn; none once `row` had its own."""
        with self._state:
            while row.logits is None and row.failure is None:
                left_s = self._handed_out + _COMING_S - time.monotonic()
                if self._taken:
                    self._state.wait()
                elif left_s > 0 and self._coming and len(self._waiting) < self.width:
                    self._state.wait(left_s)
                else:
                    batch, self._waiting = self._waiting[: self.width], self._waiting[self.width :]
                    self._taken = True
                    return batch
        return ()

    def _run(self, batch: Sequence[Row]) -> None:
        try:
            if self.width == 1:
                (row,) = batch
                row.logits = self._alone(row, torch.tensor([row.token], device=self.model.device))
            else:
                self._together(batch)
        except BaseException as error:
            for row in batch:  # each caller is told, whichever thread ran the pass
                row.failure = error if isinstance(error, Exception) else Cancelled("the pass was broken off")
            if not isinstance(error, Exception):
                raise
        finally:
            self._give_back([row for row in batch if row.failure is None])

    def _give_back(self, coming: Sequence[Row]) -> None:
        with self._state:
            self._taken = False
            if coming:
                self._coming, self._handed_out = set(coming), time.monotonic()
            self._state.notify_all()

    @torch.inference_mode()
    def _alone(self, row: Row, ids: Tensor) -> Tensor:
        if row.cancelled():
            raise Cancelled("the answer was given up")
        # Two dimensions: a slice of three (`logits_to_keep`) makes torch copy the whole head first, on CPUs.
        logits: Tensor = self.model.get_output_embeddings()(row.past.run(self.model, [ids]))
        return logits[0]

    @torch.inference_mode()
    def _together(self, batch: Sequence[Row]) -> None:
        layers, device = len(batch[0].past.layers), self.model.device
        works, new = [], [list[tuple[Tensor, Tensor]]() for _ in batch]
        for row, found in zip(batch, new, strict=True):
            ids = torch.tensor([[row.token]], device=device)
            take = _taking(found)
            works.append(Prefill(ids, layers - 1, take, row.cancelled, whole=True, past=row.past.layers))
        if missing := WIDTH - len(batch):
            nothing = torch.zeros((1, missing), dtype=torch.int64, device=device)
            works.append(Prefill(nothing, -1, _taking([])))
        prefill_together(self.model, works)
        rows = []
        for row, work, found in zip(batch, works, new, strict=False):
            row.failure = work.failure
            if work.hidden is not None:
                row.past.append(found)
                rows.append((row, work.hidden[0]))
        if rows:
            hidden = torch.cat([its for _, its in rows])
            logits = self.model.get_output_embeddings()(pad(hidden, (0, 0, 0, WIDTH - len(rows))))
            for (row, _), its in zip(rows, logits, strict=False):
                row.logits = its


def _taking(found: list[tuple[Tensor, Tensor]]) -> Callable[[int, Tensor, Tensor], None]:
    return lambda layer, keys, values: found.append((keys, values))
