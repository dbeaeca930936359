"""Run a model over prompts for their KV cache alone: layer after layer, no LM head, nothing past the last need.

A cache that keeps nothing hands each layer's K and V out as soon as they exist; an attention function that is otherwise
`sdpa` reads the query row for the excerpt, and does not repeat K and V of a past. Both are reached through public
interfaces of transformers, so every model with a standard cache works. Several prompts run together as one row without
padding: all but attention sees tokens one by one, and attention is computed for each prompt apart, on top of its own
past, under the mask that transformers makes for it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from fuser.heads.selection import attention_row
from fuser.kv.geometry import Geometry
from fuser.kv.past import Past
from kvwire.errors import Cancelled, Unsupported

ATTENTION = "kvwire_sdpa"

EXACT_FROM: Final = 16
"""Rows from which a matrix product gives a row the same bits whatever is beside it; fewer take other kernels on CPUs.
Measured with oneDNN and MKL on one and two threads; on GPUs the last bits differ at any length."""


@dataclass(eq=False, slots=True)
class Prefill:
    """What is prefilled: which tokens, on top of what, down to which layer, and who gets the K and V.

    ids: (batch, positions) int64, no padding; a batch of 1 where several are prefilled together.
    last_layer: the last layer whose K and V are needed; nothing after it is computed.
    on_layer: called with (layer, keys, values) of the new positions, keys rotated, each (batch, kv_heads, positions,
        head_dim).
    cancelled: polled before each layer.
    asking: whether the attention of the last of `ids` is read.
    first_query_layer: attention below this layer is not read.
    per_head: attention heads are kept apart instead of summed.
    whole: the model is run to its end, for the hidden states after its last layer.
    past: K and V of every layer for the positions before `ids`, as `on_layer` gave them; empty for none.
    behind: a past of one row that keeps the new K and V behind its own, in place of `past`; used up where this fails.
    then: what runs in the same pass on top of this one alone; its `past` is filled by this one's `on_layer`, and its
        `after` is how many positions this one has.
    scores: once run, (batch, past and new positions) float32: attention rows summed over the layers read; with
        `per_head` (batch, layers read * heads, past and new positions), layer after layer; None where none was read.
    hidden: once run, (batch, positions, hidden) after the last layer, as the LM head reads it; None unless `whole`.
    failure: once run, what ended it early: Cancelled, or what `on_layer` raised.
    """

    ids: Tensor
    last_layer: int
    on_layer: Callable[[int, Tensor, Tensor], None]
    cancelled: Callable[[], bool] = lambda: False
    asking: bool = False
    first_query_layer: int = 0
    per_head: bool = False
    whole: bool = False
    past: Sequence[tuple[Tensor, Tensor]] = ()
    behind: Past | None = None
    then: Prefill | None = None
    after: int = 0
    scores: Tensor | None = field(default=None, init=False)
    hidden: Tensor | None = field(default=None, init=False)
    failure: Exception | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.behind is not None:
            self.past = self.behind.layers

    @property
    def positions(self) -> int:
        """Positions that are run."""
        return self.ids.shape[1]

    @property
    def start(self) -> int:
        """Positions before them."""
        return self.after or (self.past[0][0].shape[2] if self.past else 0)

    @property
    def parts(self) -> list[Prefill]:
        """This one and what runs on top of it in the same pass."""
        return [self] if self.then is None else [self, *self.then.parts]

    def hand_out(self, layer: int, keys: Tensor, values: Tensor) -> bool:
        """Give one layer's K and V on; whether anything of this prefill is still to be computed."""
        if self.failure is None and layer <= self.last_layer:
            try:
                if self.cancelled():
                    raise Cancelled("the call ended before the prefill did")
                if self.start:
                    self.past[layer]  # fails here, for this prompt alone, where it is damaged
                self.on_layer(layer, keys, values)
            except Exception as error:  # of this prompt alone: others run on
                self.failure = error
        return self.failure is None and (
            self.whole or layer < self.last_layer or (self.asking and layer == self.last_layer)
        )

    def attend(self, layer: int, query: Tensor, keys: Tensor, scaling: float, mask: Tensor | None) -> bool:
        """Read the attention of one layer, if the last token asks; whether attention is computed at all."""
        if self.failure is not None or (layer > self.last_layer and not self.whole):
            return False
        if self.asking and self.first_query_layer <= layer <= self.last_layer:
            row = attention_row(query, keys, scaling, self.per_head, mask)
            if self.scores is None:
                self.scores = row
            else:
                self.scores = torch.cat((self.scores, row), dim=1) if self.per_head else self.scores + row
        return self.whole or layer < self.last_layer

    def joined(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of past and new positions, where any are needed still."""
        if self.behind is not None and self.failure is None:
            return self.behind.append_layer(layer, keys, values)
        if not self.past or layer > self.last_layer or self.failure is not None:
            return keys, values
        before = self.past[layer]
        return torch.cat((before[0], keys), dim=2), torch.cat((before[1], values), dim=2)


P = TypeVar("P", bound=Prefill | None)


def following(steps: Generator[P, None, object], done: P | None) -> P:
    """The next of some steps; what the last one failed with is raised in them, as they may know another way."""
    return next(steps) if done is None or done.failure is None else steps.throw(done.failure)


class _Done(Exception):
    """Nothing more is needed."""


@dataclass(eq=False, slots=True)
class _Run:
    """One pass of the model over one prefill, or over several side by side in one row."""

    works: Sequence[Prefill]
    between: Callable[[], None]

    @property
    def spans(self) -> list[tuple[Prefill, slice]]:
        found, start = [], 0
        for work in self.works:
            found.append((work, slice(start, start + work.positions)))
            start += work.positions
        return found

    def hand_out(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """What the cache gives attention: of one prompt all positions; of several the new ones, joined there."""
        wanted = [work.hand_out(layer, keys[:, :, at], values[:, :, at]) for work, at in self.spans]
        if not any(wanted):
            raise _Done
        token = _running.set(None)  # what others run meanwhile is no part of this pass
        try:
            self.between()
        finally:
            _running.reset(token)
        return self.works[0].joined(layer, keys, values) if len(self.works) == 1 else (keys, values)

    def masks(self, **what: Any) -> _Masks:
        """The masks that transformers makes for each prefill alone, of the kind that a layer asks for."""
        return _Masks(
            sdpa_mask(
                **what | {"q_length": w.positions, "kv_length": w.start + w.positions, "q_offset": w.start}
            )
            for w in self.works
        )

    def attend(
        self,
        module: Any,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        attention_mask: Tensor | _Masks | None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        layer, scaling = module.layer_idx, kwargs.get("scaling") or query.shape[-1] ** -0.5
        if not isinstance(attention_mask, _Masks):
            if len(self.works) > 1:
                raise TypeError("the model makes a mask of its own, which knows one prompt alone")
            if not self.works[0].attend(layer, query, keys, scaling, attention_mask):
                raise _Done
            return _folded(module, query, keys, values, attention_mask, **kwargs)
        outputs, needed = [], False
        for (work, at), mask in zip(self.spans, attention_mask, strict=True):
            asked = query[:, :, at]
            seen, held = work.joined(layer, keys[:, :, at], values[:, :, at])
            if work.attend(layer, asked, seen, scaling, mask):
                needed = True
                outputs.append(_folded(module, asked, seen, held, mask, **kwargs)[0])
            else:
                outputs.append(torch.zeros_like(asked.transpose(1, 2)))
        if not needed:
            raise _Done
        return torch.cat(outputs, dim=1), None


class _Masks(list[Tensor | None]):
    """A mask for each prompt of one row; None leaves it to the kernel. The model hands it from us to us."""


_running: ContextVar[_Run | None] = ContextVar("kvwire_prefill", default=None)


def _attention(module: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    run = _running.get()
    return _sdpa(module, *args, **kwargs) if run is None else run.attend(module, *args, **kwargs)


def _sdpa(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    output: tuple[Tensor, Tensor | None] = sdpa_attention_forward(*args, **kwargs)
    return output


_ONE_EACH: Final = nn.Module()
"""Stands for an attention that has as many query heads as heads of K and V."""


def _folded(
    module: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """`_sdpa`, with the query heads of one head of K and V as further positions of a single head.

    So K and V of a long past are not repeated for each query head, as `sdpa` repeats them. Left to it are prompts that
    are mostly new, where that costs less than longer masks do; the causal mask that its kernel makes; and masks and
    biases that differ from head to head.
    """
    new, groups = query.shape[2], query.shape[1] // keys.shape[1]
    alike = mask.shape[1] == 1 if mask is not None else new == 1
    if groups == 1 or not alike or 2 * new > keys.shape[2] or kwargs.get("position_bias") is not None:
        return _sdpa(module, query, keys, values, mask, **kwargs)
    folded = query.unflatten(1, (-1, groups)).flatten(2, 3)
    repeated = None if mask is None else mask.repeat(1, 1, groups, 1)
    output, _ = _sdpa(_ONE_EACH, folded, keys, values, repeated, **kwargs | {"is_causal": False})
    return output.unflatten(1, (groups, new)).permute(0, 2, 3, 1, 4).flatten(2, 3), None


def _mask(**what: Any) -> Tensor | _Masks | None:
    run = _running.get()
    if run is not None and len(run.works) > 1:
        return run.masks(**what)
    mask: Tensor | None = sdpa_mask(**what)
    return mask


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, _mask)


class _HandingCache(DynamicCache):
    """A cache for one pass that hands K and V out and keeps none, on top of what was prefilled before."""

    def __init__(self, run: _Run) -> None:
        super().__init__()
        self._run = run

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._run.works[0].start if len(self._run.works) == 1 else 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        return self._run.hand_out(layer_idx, key_states, value_states)


def prefill_together(
    model: Any, works: Sequence[Prefill], between: Callable[[], None] = lambda: None
) -> None:
    """Run the model once over several prompts; each one's `scores` and `failure` say how it went.

    K, V and scores have the bits that each prompt gets alone where it has `EXACT_FROM` positions or more, on CPUs.

    Args:
        model: a causal LM that `can_pack` where there are several; its attention implementation is `ATTENTION` where
            there are several, or query rows are read.
        between: called after each layer's K and V; may run other prefills.
    """
    given, works = works, [part for work in works for part in work.parts]
    run = _Run(works, between)
    ids = works[0].ids if len(works) == 1 else torch.cat([work.ids for work in works], dim=1)
    at = [torch.arange(w.start, w.start + w.positions, device=ids.device) for w in works]
    token = _running.set(run)
    try:
        with torch.inference_mode():
            cache = _HandingCache(run)
            positions = torch.cat(at)[None]
            done = model.get_decoder()(
                input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True
            )
        for work, at_of in run.spans:
            if work.whole and work.failure is None:
                work.hidden = done.last_hidden_state[:, at_of]
    except _Done:
        pass
    finally:
        _running.reset(token)
    for work in given:
        work.failure = next((part.failure for part in work.parts if part.failure is not None), None)


def adopt(model: Any) -> None:
    """Have a causal LM's attention computed here, once a short prompt has shown that this works.

    Raises:
        Unsupported: it does not; the model keeps some other state, or computes attention itself.
    """
    refused = f"models of type {model.config.model_type} cannot be prefilled here: "
    geometry = Geometry.of(model.config)
    found: list[tuple[Tensor, Tensor]] = []
    try:
        model.set_attn_implementation(ATTENTION)
        scores = prefill(model, _some(model, EXACT_FROM), **_all(model, found), asking=True)
    except Exception as error:  # whatever stops a model that is not of the standard form
        raise Unsupported(f"{refused}{type(error).__name__}: {error}") from error
    shape = (1, geometry.kv_heads, EXACT_FROM, geometry.head_dim)
    if len(found) != geometry.layers or any(half.shape != shape for layer in found for half in layer):
        raise Unsupported(f"{refused}not every layer has keys and values of one shape")
    if scores is None:
        raise Unsupported(f"{refused}they compute attention themselves")


def can_pack(model: Any) -> bool:
    """Whether prompts of this model may run together, tried with short ones.

    Any mask that transformers makes for the model is kept to; a model that makes its own, or that computes attention
    itself, gives other numbers beside another prompt.
    """
    ids = _some(model, 2 * EXACT_FROM)
    whole: list[tuple[Tensor, Tensor]] = []
    found: list[tuple[Tensor, Tensor]] = []
    prefill(model, ids, **_all(model, whole))
    past, expected = (
        [(k[:, :, at], v[:, :, at]) for k, v in whole] for at in (slice(EXACT_FROM), slice(EXACT_FROM, None))
    )
    rest = Prefill(ids[:, EXACT_FROM:], **_all(model, found), past=past)
    try:
        prefill_together(model, [Prefill(ids.flip(1), **_all(model, [])), rest])
    except Exception:  # it does not take masks that are no tensor
        return False
    pairs = zip(found, expected, strict=True)
    return all(_near(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def _some(model: Any, count: int) -> Tensor:
    """Any ids, (1, count) int64."""
    vocabulary: int = model.get_input_embeddings().num_embeddings
    return torch.arange(count, device=model.device)[None] % vocabulary


def _all(model: Any, found: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """What has a `Prefill` collect K and V of every layer."""
    return {
        "last_layer": Geometry.of(model.config).layers - 1,
        "on_layer": lambda _, keys, values: found.append((keys, values)),
    }


def _near(one: Tensor, other: Tensor) -> bool:
    """Whether tensors differ by no more than rounding does."""
    difference, size = (float(tensor.float().norm()) for tensor in (one - other, other))
    return difference <= 0.05 * size


def prefill(model: Any, ids: Tensor, **what: Any) -> Tensor | None:
    """Prefill one prompt (or a batch of equal length) and hand out every layer's K and V.

    Args:
        what: the further attributes of `Prefill`.

    Returns:
        Its scores.

    Raises:
        Cancelled: `cancelled()` became true.
    """
    work = Prefill(ids, **what)
    prefill_together(model, [work])
    if work.failure is not None:
        raise work.failure
    return work.scores
