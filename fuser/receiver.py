"""The Receiver: prefill what it may hold, take slices in, generate, or tell how likely a reply is.

Everything is done for a batch of prompts of any lengths; the service's is one. A shared slice is fused with the
Receiver's own KV layer by layer, as its segments arrive. An excerpt is expanded to extra positions that stand where the
withheld document would, and the question is prefilled on top of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from fuser.bundle.bundle import Bundle
from fuser.heads.fusing import CodeIntake, Fusing, Intake, SharedIntake
from fuser.heads.translate import split_kv
from fuser.kv.generate import (
    Choose,
    Generated,
    Outcome,
    Signals,
    answer_loss,
    generate,
    most_likely,
    never,
    pieces,
    require_probabilities,
    stop_tokens,
    token_ids,
)
from fuser.kv.geometry import Geometry, window
from fuser.kv.past import Past, PrefixCache
from fuser.kv.rope import Rope
from fuser.kv.turns import ModelTurns
from fuser.prompts.prompt import RECEIVER_HOLDS, Rendered, Tokens, render, reply_ids, tokenise
from fuser.prompts.shared import SharedPositions, shared_positions
from fuser.slice_specs import SliceLayout
from kvwire.errors import TooLarge, Unsupported
from kvwire.plan import WHOLE, Plan
from kvwire.section import Section, Visibility
from kvwire.segment import SliceKind

_HEADS_BYTES: Final = 32 << 20


class Receiver:
    """A Receiver model with the bundle that says how slices are taken in.

    The bundle's heads are moved to the model's device; segments may come on any.

    Attributes:
        window: positions the model was made for; prompt, prefix, slice and answer have to fit.
        prefix_cache: what stands before a slice of prompts that were begun before.
        turns: on the model. Take one around every other step of several threads; `Prefilled.generate` takes its own.
    """

    def __init__(self, model: Any, tokenizer: Any, bundle: Bundle) -> None:
        geometry = Geometry.of(model.config)
        if geometry != bundle.config.receiver_geometry:
            raise Unsupported(
                f"bundle wants a Receiver of {bundle.config.receiver_geometry}, this model is {geometry}"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.bundle = bundle.to(model.device)
        self.geometry = geometry
        self.rope = Rope(model)
        self.stops = stop_tokens(model, tokenizer)
        self.window = window(model.config)
        self.prefix_cache = PrefixCache(_HEADS_BYTES)
        self.turns = ModelTurns(model)

    def begin(self, *prompts: Sequence[Section]) -> Begun:
        """Render and tokenise prompts; cloud sections keep their place but give no text.

        Raises:
            TooLarge: a prompt does not fit the Receiver's window.
        """
        return Begun(self, [self._prompt(sections) for sections in prompts])

    def abstains(self, prompt: Prompt) -> int | None:
        """The token with which the Receiver begins to say that there is no answer; None if it was not taught to."""
        abstain = self.bundle.config.abstain
        return int(_replies(self, prompt, [abstain])[0][0]) if abstain else None

    def _prompt(self, sections: Sequence[Section]) -> Prompt:
        rendered = render(sections, self.bundle.config.receiver_prompt, RECEIVER_HOLDS)
        tokens = tokenise(self.tokenizer, rendered)
        insertion = int((tokens.offsets[:, 0] < rendered.insertion).sum())
        return Prompt(tuple(sections), rendered, tokens, insertion)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt of the Receiver. insertion: how many of its tokens stand before a slice that is put into it."""

    sections: tuple[Section, ...]
    rendered: Rendered
    tokens: Tokens
    insertion: int

    @property
    def shared(self) -> SharedPositions:
        """The positions that a shared slice is fused into."""
        found = shared_positions(self.tokens.offsets, self.sections, self.rendered.spans)
        return found.fused(len(self.tokens.ids))


class Begun:
    """Prompts that nothing is run of yet: `prefill` them, in another thread than the slice comes in if need be."""

    def __init__(self, receiver: Receiver, prompts: Sequence[Prompt]) -> None:
        self._receiver = receiver
        self.prompts = tuple(prompts)
        _check_window(receiver, max(len(prompt.tokens.ids) for prompt in prompts))

    def prefill(self, kind: SliceKind | None) -> Prefilled:
        """Run the Receiver over what can be run before the slice is there; no gradient.

        Args:
            kind: SHARED runs all but a prompt's last token. EXCERPT and None (receiver-only) run up to where the
                document stands or would stand, and put the bundle's learnt prefix there, if it has one.

        Raises:
            TooLarge: with the prefix a prompt does not fit the Receiver's window.
        """
        shared = kind is SliceKind.SHARED
        until = [len(p.tokens.ids) - 1 if shared else p.insertion for p in self.prompts]
        ids = [p.tokens.ids[:end] for p, end in zip(self.prompts, until, strict=True)]
        rest = [p.tokens.ids[end:] for p, end in zip(self.prompts, until, strict=True)]
        prefilled = Prefilled(self._receiver, kind, self.prompts, self._run(ids, kept=not shared), rest)
        prefix = self._receiver.bundle.prefix_kv(kind)
        if prefix is not None and len(prefix):
            prefilled.put(prefix[None].expand(len(ids), -1, -1))
        return prefilled

    def check_replies(self, replies: Sequence[str], kind: SliceKind | None, positions: int = 0) -> None:
        """Refuse replies that `Prefilled.likelihoods` could not compare behind a slice of that kind.

        Args:
            positions: the most that an excerpt or a draft was asked to have.

        Raises:
            TooLarge: the longest reply would not fit the Receiver's window behind them.
            Unsupported: the model changes its logits after the head.
        """
        receiver, bundle = self._receiver, self._receiver.bundle
        require_probabilities(receiver.model, "choices over a document")
        prefix = bundle.prefix_kv(kind)
        before = 0 if prefix is None else len(prefix)
        if kind not in (None, SliceKind.SHARED):
            before += positions * bundle.require_translate().receiver_positions
        for prompt in self.prompts:
            longest = max(len(ids) for ids in _replies(receiver, prompt, replies))
            _check_window(receiver, before + len(prompt.tokens.ids) + longest)

    @torch.no_grad()
    def _run(self, ids: Sequence[Tensor], kept: bool) -> Past:
        """What the first tokens of each prompt become; where all begin alike, and may be kept, it is run once."""
        receiver, rows = self._receiver, len(ids)
        past = Past.empty(rows, receiver.model.device)
        if not all(len(first) for first in ids):
            if any(len(first) for first in ids):
                raise ValueError("some of these prompts have nothing before a slice, and others have")
            return past
        if not all(torch.equal(first, ids[0]) for first in ids):
            past.run(receiver.model, ids)
            return past
        # It is the same for every question over a document; notes of the edge are not kept beyond their answer.
        kept = kept and all(s.visibility is not Visibility.EDGE for p in self.prompts for s in p.sections)
        known = receiver.prefix_cache.get("", ids[0], 1) if kept else None
        past = Past.empty(1, receiver.model.device)
        if known is None:
            past.run(receiver.model, ids[:1])
            if kept:
                receiver.prefix_cache.put("", ids[0], past.layers)
        else:
            past.append(known)
        return past if rows == 1 else past.repeat(rows)


class Prefilled:
    """Prefilled prompts, with what was put before their questions.

    Take a slice in with `take` (of the service) or `fusing` and `put` (of many at once), then call `generate`,
    `answers` or `loss`, once: each of the three writes into `past`.

    Attributes:
        kind: of slice that it was prefilled for. prompts: as they were begun. past: what the model has. rest: of each
        prompt what is still to be run, int64. tokens: ids that `generate` has given so far.
        signals: what tells how likely they are right.
    """

    def __init__(
        self,
        receiver: Receiver,
        kind: SliceKind | None,
        prompts: Sequence[Prompt],
        past: Past,
        rest: Sequence[Tensor],
    ) -> None:
        self.receiver, self.kind, self.prompts = receiver, kind, tuple(prompts)
        self.past, self.rest = past, list(rest)
        self.tokens: list[int] = []
        self.signals = Signals()
        self.check_window(0)

    def copy(self) -> Prefilled:
        """A copy, to take another slice in."""
        return Prefilled(self.receiver, self.kind, self.prompts, self.past.copy(), self.rest)

    def put(self, rows: Tensor | Sequence[Tensor]) -> None:
        """Put Receiver KV (positions, receiver width), keys re-based, behind what each row has; differentiable.

        Args:
            rows: of a batch; as one tensor where all have as many positions.

        Raises:
            TooLarge: with it a prompt does not fit the Receiver's window.
        """
        flat = rows if isinstance(rows, Tensor) else pad_sequence(list(rows), batch_first=True)
        missing = [flat.shape[1] - len(row) for row in rows]
        self.check_window(flat.shape[1])
        rope, dtype = self.receiver.rope, self.receiver.model.dtype
        keys, values = split_kv(flat, self.receiver.geometry)
        at = self.past.lengths[:, None] + torch.arange(flat.shape[1], device=flat.device)
        keys = rope.rotate_all(keys, at).to(dtype)
        self.past.append(list(zip(keys, values.to(dtype), strict=True)), missing)

    def put_codes(self, codes: Tensor) -> None:
        """The same from codes (batch, positions, values); values that were not sent count as 0, the mean of codes."""
        head = self.receiver.bundle.require_translate()
        codes = codes.to(self.receiver.model.device)
        self.put(head.expand(functional.pad(codes, (0, head.code_dim - codes.shape[-1]))))

    def ask_after(self, texts: Sequence[Tensor]) -> None:
        """Have the model read further tokens, (tokens,) int64 a row, before the rest of each prompt."""
        self.rest = [torch.cat(pair) for pair in zip(texts, self.rest, strict=True)]

    def fusing(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Fusing:
        """Fuse slices into the rows; `pairs` as there.

        Raises:
            ValueError: the prompts were not prefilled for shared slices.
        """
        receiver = self.receiver
        if self.kind is not SliceKind.SHARED:
            raise ValueError(f"prompts prefilled for {self.kind} have nothing to fuse")
        return Fusing(receiver.bundle.require_fuse(), receiver.rope, self.past, pairs)

    def take(self, layout: SliceLayout, plan: Plan = WHOLE) -> Intake[Prefilled]:
        """Begin to take a slice into the one row.

        Args:
            layout: its spans count the sections of the prompt.
            plan: as it was asked for. Where it leaves out positions, layers or halves, ours stay what they are.

        Raises:
            Unsupported: the bundle has no head for this kind of slice.
            TooLarge: with the slice the prompt does not fit the Receiver's window.
            ValueError: the spans do not fit the prompt, or the prompts were prefilled for another kind.
        """
        if layout.kind is not self.kind:
            raise ValueError(f"prompts prefilled for {self.kind} take no slice of kind {layout.kind}")
        bundle = self.receiver.bundle
        if layout.kind is not SliceKind.SHARED:
            each = bundle.require_translate().receiver_positions
            self.check_window(sum(spec.positions for spec in layout.specs) * each)
            return CodeIntake(self, layout.specs, self.put_codes)
        (prompt,) = self.prompts
        spans = torch.tensor(layout.spans, dtype=torch.int64, device=prompt.tokens.ids.device).reshape(-1, 3)
        fusing = self.fusing([prompt.shared.fed(spans, layout.tail, plan.last > 0)])
        return SharedIntake(self, layout.specs, bundle.require_fuse(), fusing)

    def generate(
        self,
        max_new_tokens: int,
        choose: Choose | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[str]:
        """Yield text pieces of the one row, up to the end of the Receiver's window; ids collect in `tokens`.

        Takes a turn of the Receiver for each token; others may be generating meanwhile.

        Args:
            choose: the next token (`fuser.Sampling.chooser`); None takes the most likely one.
            cancelled: polled before each step.

        Raises:
            Cancelled: `cancelled()` became true.
        """
        turns, stops = self.receiver.turns, self.receiver.stops
        (rest,), (prompt,) = self.rest, self.prompts
        self.signals = Signals(self.receiver.abstains(prompt))
        limit = min(max_new_tokens, self.room)
        choose = choose or most_likely
        stream = token_ids(turns, rest, self.past, stops, limit, choose, self.signals, cancelled)
        return pieces(self.receiver.tokenizer, stream, self.tokens)

    def answers(self, max_new_tokens: int, ended: Callable[[list[int]], bool] = never) -> Generated:
        """Whole answers of all rows; the arguments are those of `fuser.kv.generate.generate`."""
        model, limit = self.receiver.model, min(max_new_tokens, self.room)
        abstain = self.receiver.abstains(self.prompts[0])
        return generate(model, self.past, self.rest, self.receiver.stops, limit, ended, abstain)

    def loss(self, replies: Sequence[Tensor]) -> Outcome:
        """How surprised the Receiver is by a reply a row, (tokens,) int64; differentiable in what was taken in."""
        return answer_loss(self.receiver.model, self.past, self.rest, replies)

    @torch.inference_mode()
    def likelihoods(self, replies: Sequence[str]) -> list[float]:
        """How likely the one row is to give each of these replies and end: the geometric mean of its tokens'
        probabilities. The row may still be used.

        Raises:
            TooLarge: the longest reply does not fit the Receiver's window.
        """
        (rest,), (prompt,), count = self.rest, self.prompts, len(replies)
        ids = _replies(self.receiver, prompt, replies)
        self.check_window(max(map(len, ids)))
        losses = answer_loss(self.receiver.model, self.past.repeat(count), [rest] * count, ids).losses
        found: list[float] = losses.neg().exp().tolist()
        return found

    @property
    def room(self) -> int:
        """New tokens for which the window has room in every row."""
        return self.receiver.window - self._longest

    @property
    def _longest(self) -> int:
        """Positions of the longest row, once the rest of its prompt is run."""
        lengths = self.past.lengths.tolist()
        return int(max(own + len(rest) for own, rest in zip(lengths, self.rest, strict=True)))

    def check_window(self, positions: int) -> None:
        """Refuse prompts that leave no room for an answer after this many further positions."""
        _check_window(self.receiver, self._longest + positions)


def _replies(receiver: Receiver, prompt: Prompt, replies: Sequence[str]) -> list[Tensor]:
    """Token ids of each reply to a prompt, with its end."""
    end = int(receiver.tokenizer.eos_token_id)
    return [reply_ids(receiver.tokenizer, prompt.rendered, reply, end) for reply in replies]


def _check_window(receiver: Receiver, positions: int) -> None:
    """Refuse a number of positions that leaves no room for a token of an answer."""
    if positions + 1 > receiver.window:
        raise TooLarge("Receiver prompt positions", positions + 1, receiver.window)
