"""Prefixes of prompts that were prefilled before: the next question over a document need not read it again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

Layer = tuple[Tensor, Tensor]
"""K, rotated, and V of one layer, each (1, kv_heads, positions, head_dim)."""
KV = Sequence[Layer]
"""Of each layer from the first on."""


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
