"""Read prompts with the Sharer: render, tokenise, prefill, keep K and V where they are wanted, score what was read.

A prompt is read in two parts, first what it has up to the end of its last document, then the rest on top. So the next
question over a document finds it read, and everybody gets the same bits: the service, which lets the model schedule
the parts of many calls, as well as training and evaluation, which read a batch and wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from fuser.heads.answerable import Answerable
from fuser.heads.selection import Scorer, SelectionConfig
from fuser.kv.drafting import write
from fuser.kv.generate import stop_tokens
from fuser.kv.geometry import Geometry, window
from fuser.kv.past import KV, Layer, PrefixCache
from fuser.kv.prefill import EXACT_FROM, Prefill, adopt, can_pack, following, prefill_together
from fuser.kv.prefix_files import PrefixFrom, StoredText
from fuser.kv.prefix_store import DamagedPrefix, PrefixStore, StoredKV
from fuser.kv.rope import Rope
from fuser.prompts.prompt import PromptStyle
from fuser.reading import Reading, SharerPrompt, prompt_of
from kvwire.section import Section

T = TypeVar("T")

Steps = Generator[Prefill, None, T]
"""Prefills to be run one after another, each before the next is asked for; then a result."""

OnLayer = Callable[[int, Tensor, Tensor], None]
"""Called with a layer and its K, rotated, and V, each (kv_heads, positions, head_dim)."""

_UNBOUNDED = 1 << 62


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom a prompt is read.

    cancelled: polled before each layer. owner: whose documents these are; what was read for one owner is not reused
    for another. stored: the text of the prompt's one document, where it is one that somebody stored: what is read of it
    may be kept on disk. found: called with where the documents' K and V came from, once they are there.
    """

    cancelled: Callable[[], bool] = lambda: False
    owner: str = ""
    stored: StoredText | None = None
    found: Callable[[PrefixFrom], None] = lambda _: None


class Reader:
    """A Sharer model, read for its K, V and attention. The steps of several prompts may take turns on one thread.

    Args:
        selection: which attention is read; how many positions are then chosen does not matter here.
        scorer: of a learnt selection; it is moved to the model's device.
        prefixes: of this model, where documents that were read before are found; it may serve other bundles too.
        store: those of them that are on disk. What is read has the same bits with both and without.
        answerable: tells of a question whether its documents hold the answer; it is moved to the model's device.

    Raises:
        Unsupported: the model cannot be prefilled layer by layer.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        style: PromptStyle,
        selection: SelectionConfig,
        scorer: Scorer | None = None,
        prefixes: PrefixCache | None = None,
        store: PrefixStore | None = None,
        answerable: Answerable | None = None,
    ) -> None:
        adopt(model)
        self.model = model
        self.tokenizer = tokenizer
        self.geometry = Geometry.of(model.config)
        self.rope = Rope(model)
        self.window = window(model.config)
        self.style = style
        self.selection = selection
        self.scorer = None if scorer is None else scorer.to(model.device)
        self.answerable = None if answerable is None else answerable.to(model.device)
        self._prefixes, self._store = prefixes or PrefixCache(0), store
        self._stops = stop_tokens(model, tokenizer)

    def prompt(self, sections: Sequence[Section]) -> SharerPrompt:
        """Render and tokenise sections; documents already resolved."""
        return prompt_of(self.tokenizer, self.style, sections)

    def read(
        self,
        prompts: Sequence[SharerPrompt],
        layers: Collection[int] | None = None,
        at: Sequence[Tensor] | None = None,
        *,
        asking: bool = False,
        per_head: bool = False,
        draft: int = 0,
    ) -> list[Reading]:
        """Read prompts; what several begin with is prefilled once, and those that are long enough run together.

        On CPUs each has the bits that it has alone and in the service.

        Args:
            layers: whose K and V are kept; all by default.
            at: positions of each prompt where they are kept, ascending; all by default.
            asking: attention of each prompt's last token is read: it chooses an excerpt.
            per_head: keep its attention heads apart, whatever the selection does with them.
            draft: tokens at most of a short answer that is written after each prompt, and kept with it.
        """
        kept = range(self.geometry.layers) if layers is None else layers
        wanted = [torch.arange(len(p), device="cpu") for p in prompts] if at is None else at
        prefixes = PrefixCache(_UNBOUNDED)
        first: dict[int, Steps[Reading]] = {}
        rest: dict[int, Steps[Reading]] = {}
        begun: set[bytes] = set()
        for number, (prompt, where) in enumerate(zip(prompts, wanted, strict=True)):
            steps = self.reading(
                prompt,
                kept,
                where,
                asking=asking or per_head,
                per_head=per_head,
                draft=draft,
                prefixes=prefixes,
            )
            prefix = prompt.tokens.ids[: prompt.prefix].numpy().tobytes()
            (rest if prefix in begun else first)[number] = steps
            begun |= {prefix} if prefix else set()
        found = self._run(first) | self._run(rest)
        return [found[number] for number in range(len(prompts))]

    def reading(
        self,
        prompt: SharerPrompt,
        layers: Collection[int],
        at: Tensor,
        caller: Caller = Caller(),
        *,
        asking: bool = False,
        per_head: bool = False,
        draft: int = 0,
        ended: Callable[[list[int]], bool] | None = None,
        on_layer: OnLayer | None = None,
        prefixes: PrefixCache | None = None,
    ) -> Steps[Reading]:
        """What is to be prefilled for a reading: the prefix, unless it was before, and the rest on top of it.

        In two parts even where nothing is reused, also where both run in one pass: how a prompt is parted changes the
        last bits.

        Args:
            layers, at, asking, per_head, draft: as in `read`, of one prompt. A draft's positions are kept behind `at`.
            ended: whether a draft is over before the last of these tokens; by default where its first line is.
            on_layer: is given what would be kept of a layer as soon as it is computed; nothing is kept then, and
                nothing drafted.
            prefixes: in place of the reader's own, and of its store.
        """
        draft = max(0, min(draft, self.window - len(prompt)))
        within = len(at) > 0 and int(at[-1]) < prompt.prefix
        at = at.to(self.model.device)
        ids = prompt.tokens.ids.to(self.model.device)
        last_layer = self.geometry.layers - 1 if asking or draft else max(layers, default=0)
        past: KV = ()
        kv: dict[int, tuple[Tensor, Tensor]] = {}
        given: set[int] = set()
        all_layers: list[Layer] = []
        answerable = self.answerable if prompt.prefix and (asking or draft) else None
        ending = () if answerable is None else answerable.config.layers
        ends: dict[int, Layer] = {}  # of the prompt's last position

        def take(layer: int, keys: Tensor, values: Tensor) -> None:
            if layer in ending:
                ends[layer] = keys[0][:, -1:], values[0][:, -1:]
            if layer not in layers and not draft:
                return
            if past:
                before = past[layer]
                if within and not draft:  # a long document is not copied for what a few positions need
                    keys, values = before
                else:
                    keys, values = torch.cat((before[0], keys), dim=2), torch.cat((before[1], values), dim=2)
            if draft:
                all_layers.append((keys, values))
            if layer not in layers:
                return
            if on_layer is None:
                kv[layer] = keys[0][:, at], values[0][:, at]
            elif layer not in given:
                given.add(layer)
                on_layer(layer, keys[0][:, at], values[0][:, at])

        own, prefix = prefixes or self._prefixes, ids[: prompt.prefix]
        while True:
            known = self._known(prefix, last_layer, caller, own) if prompt.prefix else ()
            first, past = self._begun(prefix, last_layer, caller) if known is None else (None, known)
            work = Prefill(
                ids[None, prompt.prefix :],
                last_layer,
                take,
                caller.cancelled,
                asking=asking,
                first_query_layer=self.selection.first_query_layer(self.geometry.layers),
                per_head=per_head or self.scorer is not None,
                whole=draft > 0,
                past=past,
            )
            if first is not None and min(first.positions, work.positions) >= EXACT_FROM and self.packs:
                first.then, work.after = work, first.positions  # one pass, to the same bits
            try:
                if first is not None:
                    yield first
                    self._keep(prefix, past, caller, own)
                if not work.after:
                    yield work
                break
            except DamagedPrefix:  # found out while it was in use: once more, without it
                caller = replace(caller, stored=None)
                kv.clear()
                all_layers.clear()
        if isinstance(past, StoredKV):
            self._prefixes.put(caller.owner, ids[: prompt.prefix], past[: last_layer + 1])
        work.past = past = ()  # a draft has all of it in its own copy
        said: list[int] = []
        likely: list[float] = []
        if draft:
            assert work.hidden is not None
            said, new, likely = yield from write(
                self.model,
                ids.tolist(),
                work.hidden[0, -1],
                all_layers,
                draft,
                ended or self._ended,
                caller.cancelled,
            )
            at = torch.cat((at, torch.arange(len(said), device=at.device) + len(prompt)))
            kv = {
                layer: (
                    torch.cat((keys, new[layer][0][0]), dim=1),
                    torch.cat((values, new[layer][1][0]), dim=1),
                )
                for layer, (keys, values) in kv.items()
            }
        scores = work.scores
        if scores is not None:
            with torch.inference_mode():
                scores = (scores if per_head or self.scorer is None else self.scorer(scores))[0].cpu()
        read = Reading(prompt, at, kv, scores, self.rope, tuple(said), tuple(likely))
        if answerable is None:
            return read
        last = torch.tensor([len(prompt) - 1], device=self.model.device)
        with torch.inference_mode():
            odds = answerable(replace(read, at=last, kv=ends).features(sorted(ends)))
        return replace(read, answerable=float(odds))

    def _ended(self, said: list[int]) -> bool:
        """A draft is over where its first line is, or the model ends it."""
        return said[-1] in self._stops or "\n" in self.tokenizer.decode(said)

    def reading_ahead(self, prompt: SharerPrompt, caller: Caller) -> Steps[None]:
        """What is to be prefilled for the documents of a prompt alone, so that every later question finds them read."""
        ids = prompt.tokens.ids[: prompt.prefix].to(self.model.device)
        last_layer, nowhere = self.geometry.layers - 1, PrefixCache(0)
        if self._known(ids, last_layer, caller, nowhere) is None:
            work, read = self._begun(ids, last_layer, caller)
            yield work
            self._keep(ids, read, caller, nowhere)

    def bytes_of(self, positions: int) -> int:
        """K and V of so many positions, on disk; 0 where nothing is kept there."""
        return 0 if self._store is None else self._store.bytes_of(positions)

    def is_read(self, prompt: SharerPrompt, stored: StoredText) -> bool:
        """Whether K and V of a prompt's document are on disk."""
        return self._store is not None and self._store.holds(stored, prompt.tokens.ids[: prompt.prefix])

    def _known(self, ids: Tensor, last_layer: int, caller: Caller, prefixes: PrefixCache) -> KV | None:
        """K and V of a prefix that was read before, in memory or on disk."""
        kept = prefixes.get(caller.owner, ids, last_layer + 1)
        if kept is not None:
            caller.found(PrefixFrom.MEMORY)
            return kept
        if self._store is not None and caller.stored is not None:
            stored = self._store.get(caller.stored, ids, last_layer + 1)
            if stored is not None:
                caller.found(PrefixFrom.DISK)
                return stored
        caller.found(PrefixFrom.MODEL)
        return None

    def _begun(self, ids: Tensor, last_layer: int, caller: Caller) -> tuple[Prefill, KV]:
        """What reads a prefix, and where K and V of it come layer by layer."""
        read: list[Layer] = []

        def on_layer(_: int, keys: Tensor, values: Tensor) -> None:
            # not a view of what others read beside it
            read.append((keys.contiguous(), values.contiguous()))

        return Prefill(ids[None], last_layer, on_layer, caller.cancelled), read

    def _keep(self, ids: Tensor, read: KV, caller: Caller, prefixes: PrefixCache) -> None:
        """Keep what was read for the next question; on disk where it is of every layer."""
        prefixes.put(caller.owner, ids, read)
        if self._store is not None and caller.stored is not None and len(read) == self.geometry.layers:
            self._store.put_soon(caller.stored, ids, read)

    def _run(self, steps: Mapping[int, Steps[T]]) -> dict[int, T]:
        """Take the steps of several prompts, the n-th of all together."""
        waiting, found = dict(steps), {}
        works: dict[int, Prefill] = {}
        while waiting:
            for number, one in list(waiting.items()):
                try:
                    works[number] = following(one, works.get(number))
                except StopIteration as end:
                    found[number] = end.value
                    del waiting[number]
                    works.pop(number, None)
            self._prefill(list(works.values()))
        return found

    def _prefill(self, works: Sequence[Prefill]) -> None:
        """Run prefills, those together that have the bits then that they have alone."""
        together = [work for work in works if work.positions >= EXACT_FROM]
        if len(together) < 2 or not self.packs:
            together = []
        for some in ([together] if together else []) + [[w] for w in works if w not in together]:
            prefill_together(self.model, some)

    @cached_property
    def packs(self) -> bool:
        """Whether several prompts run together, to the bits that each has alone."""
        return can_pack(self.model)
