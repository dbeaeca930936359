"""What a model runs on top of: KV of a batch of rows, and of prefixes that were prefilled before."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

Layer = tuple[Tensor, Tensor]
"""K, rotated, and V of one layer, each (batch, kv_heads, positions, head_dim)."""
KV = Sequence[Layer]
"""Of each layer from the first on."""


class Past:
    """KV of rows of different lengths; a service's answer is a batch of one.

    Rows are padded on the left: position p of row r lies in slot `pads[r] + p` of every layer. So a row's positions lie
    next to each other, and models with a sliding window see the window they know. Tensors of the cache are replaced
    and never changed in place, except by who owns a fresh copy.

    Attributes:
        cache: K (rotated) and V of every layer, each (batch, kv_heads, slots, head_dim).
        pads: (batch,) int64, slots of padding before each row, on the model's device.
    """

    def __init__(self, cache: DynamicCache, pads: Tensor, padded: bool) -> None:
        self.cache, self.pads, self._padded = cache, pads, padded

    @classmethod
    def empty(cls, rows: int, device: torch.device) -> Past:
        """Rows of no position."""
        return cls(DynamicCache(), torch.zeros(rows, dtype=torch.int64, device=device), padded=False)

    @classmethod
    def of(cls, rows: Sequence[KV]) -> Past:
        """Rows that were read apart: of each the K (rotated) and V of every layer, (kv_heads, positions, head_dim)."""
        lengths = [kv[0][0].shape[1] for kv in rows]
        pads = [max(lengths) - length for length in lengths]
        made = cls(DynamicCache(), torch.tensor(pads, device=rows[0][0][0].device), padded=any(pads))

        def together(layer: int, half: int) -> Tensor:
            tensors = zip((kv[layer][half] for kv in rows), pads, strict=True)
            return torch.stack([pad(tensor, (0, 0, missing, 0)) for tensor, missing in tensors])

        made.append([(together(layer, 0), together(layer, 1)) for layer in range(len(rows[0]))])
        return made

    @property
    def slots(self) -> int:
        """Slots of the cache, padding included."""
        return int(self.cache.get_seq_length())

    @property
    def lengths(self) -> Tensor:
        """(batch,) int64, each row's own positions."""
        return self.slots - self.pads

    @property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """K and V of every layer, as in `cache`."""
        return [(layer.keys, layer.values) for layer in self.cache.layers]

    def copy(self) -> Past:
        """The same rows, to run something else on top of."""
        return self._with(self.layers, self.pads)

    def repeat(self, rows: int) -> Past:
        """This one row, `rows` times."""
        shape = (rows, -1, -1, -1)
        return self._with(
            [(k.expand(*shape), v.expand(*shape)) for k, v in self.layers], self.pads.expand(rows)
        )

    def append(self, layers: KV, missing: Sequence[int] = ()) -> None:
        """Put K (rotated) and V of new positions behind each row; differentiable.

        Args:
            missing: of each row, how many of these positions are padding at their end; none by default.
        """
        for layer, (keys, values) in enumerate(layers):
            self.append_layer(layer, keys, values)
        if any(missing):
            self._settle(torch.tensor(missing, device=self.pads.device))

    def append_layer(self, layer: int, keys: Tensor, values: Tensor) -> Layer:
        """The same of one layer; what it then has. Every layer has to get as many positions."""
        joined: Layer = self.cache.update(keys, values, layer)
        return joined

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        index = torch.tensor(rows, device=self.pads.device)
        self.cache.batch_select_indices(index)
        self.pads = self.pads[index]

    def run(self, model: Any, rows: Sequence[Tensor]) -> Tensor:
        """Run a row of new tokens, (tokens,) int64 of at least one, on top of each row; no LM head.

        Returns:
            (batch, hidden) hidden states of each row's last token.

        Raises:
            ValueError: a row without a token.
        """
        counts = [len(ids) for ids in rows]
        if 0 in counts:
            raise ValueError(f"row {counts.index(0)} has no token to run")
        hidden = self.read(model, pad_sequence(list(rows), batch_first=True))
        longest = hidden.shape[1]
        if min(counts) == longest:
            return hidden[:, -1]
        count = torch.tensor(counts, device=self.pads.device)
        self._settle(longest - count)
        return hidden[torch.arange(len(counts), device=hidden.device), count - 1]

    def read(self, model: Any, ids: Tensor) -> Tensor:
        """Hidden states (batch, tokens, hidden) of new tokens (batch, tokens) int64; differentiable.

        Padding comes last in `ids`, so nothing real attends to it; but it stays in the cache, which is then used up.
        """
        start, device = self.slots, self.pads.device
        slots = torch.arange(start + ids.shape[1], device=device)[None]
        # Without padding the plain causal mask is right, and faster.
        mask = (slots >= self.pads[:, None]).long() if self._padded else None
        hidden: Tensor = (
            model.get_decoder()(
                input_ids=ids.to(device),
                past_key_values=self.cache,
                attention_mask=mask,
                position_ids=slots[:, start:] - self.pads[:, None],
                use_cache=True,
            )
        ).last_hidden_state
        return hidden

    def _settle(self, missing: Tensor) -> None:
        """Move each row right by the slots (batch,) that it has of padding at its end."""
        slots = torch.arange(self.slots, device=missing.device)
        index = (slots[None] - missing[:, None]).clamp(min=0)[:, None, :, None]
        for layer in self.cache.layers:
            at = index.expand(*layer.keys.shape)
            layer.keys, layer.values = layer.keys.gather(2, at), layer.values.gather(2, at)
        self.pads, self._padded = self.pads + missing, True

    def _with(self, layers: KV, pads: Tensor) -> Past:
        made = Past(DynamicCache(), pads, self._padded)
        made.append(layers)
        return made


class PrefixCache:
    """The last used prefixes of one model, within a bound of memory. Thread-safe.

    An entry is found by its owner and its very token ids, so a changed document is another one, and no owner can tell
    what another asked about. What a removed document left here stays until others push it out, or `forget`.

    Args:
        max_bytes: of K and V kept; 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[tuple[str, bytes], KV] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Bytes of K and V kept now."""
        return self._bytes

    def get(self, owner: str, ids: Tensor, layers: int) -> KV | None:
        """K and V of a prompt's first tokens `ids` (positions,) int64, of at least `layers` layers; else None."""
        key = _key(owner, ids)
        with self._lock:
            found = self._entries.get(key)
            if found is None or len(found) < layers:
                return None
            self._entries.move_to_end(key)
            return found

    def put(self, owner: str, ids: Tensor, kv: KV) -> None:
        """Keep K and V of a prefix, and let go of what was not used longest."""
        key, size = _key(owner, ids), _size(kv)
        if size > self._max_bytes:
            return
        with self._lock:
            self._bytes += size - _size(self._entries.pop(key, []))
            self._entries[key] = kv
            while self._bytes > self._max_bytes:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= _size(oldest)

    def forget(self, owner: str) -> None:
        """Let go of all that was read for an owner."""
        with self._lock:
            for key in [key for key in self._entries if key[0] == owner]:
                self._bytes -= _size(self._entries.pop(key))


def _key(owner: str, ids: Tensor) -> tuple[str, bytes]:
    return owner, ids.cpu().numpy().tobytes()


def _size(kv: KV) -> int:
    return sum(half.numel() * half.element_size() for layer in kv for half in layer)
