"""Prefixes of documents on disk: K and V that were computed once serve every later question, also after a restart.

One safetensors file for each prefix, mapped into memory: layers are read and checked ahead while the first ones are
used. What is damaged, torn, or another's is a miss: it is removed and told in the log. The numbers are those that the
model computed, so a slice has the same bits with the store and without.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final, overload

import torch
import transformers
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fuser.atomic import atomic_write
from fuser.kv.geometry import Geometry
from fuser.kv.past import KV, Layer
from fuser.kv.prefix_files import PrefixFiles, StoredText
from kvwire.identity import ModelRef

__all__ = ["DamagedPrefix", "PrefixStore", "StoredKV"]

logger = logging.getLogger(__name__)

_FORMAT: Final = "kvwire prefix 1"
_PENDING: Final = 2  # prefixes that wait in memory to be written; a third is left for the next time


class DamagedPrefix(Exception):
    """A layer on disk is not what was written; the file is removed, so who asks again has a miss."""


class StoredKV(Sequence[Layer]):
    """K and V of each layer of a stored prefix, on the model's device; each is checked before it is handed out."""

    def __init__(self, path: Path, layers: list[Layer], sums: Sequence[str], device: torch.device) -> None:
        self._path, self._layers, self._sums, self._device = path, layers, sums, device
        self._checked, self._damaged = [False] * len(layers), False
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._layers)

    @overload
    def __getitem__(self, layer: int) -> Layer: ...
    @overload
    def __getitem__(self, layer: slice) -> list[Layer]: ...
    def __getitem__(self, layer: int | slice) -> Layer | list[Layer]:
        """Raises DamagedPrefix."""
        if isinstance(layer, slice):
            return [self[one] for one in range(len(self))[layer]]
        if not self._checked[layer]:
            with self._lock:
                self._check(layer)
        return self._layers[layer]

    def read_ahead(self) -> None:
        """Read and check all layers, the first one first, until one is damaged."""
        try:
            for layer in range(len(self)):
                self[layer]
        except DamagedPrefix:
            pass  # told to who comes to that layer

    def _check(self, layer: int) -> None:
        if self._checked[layer]:
            return
        keys, values = self._layers[layer]
        if self._damaged or _sum(layer, keys, values) != self._sums[layer]:
            if not self._damaged:  # once: another may have written it anew since
                _discard(self._path, f"layer {layer} is damaged")
            self._damaged = True
            raise DamagedPrefix(f"layer {layer}")
        self._layers[layer] = keys.to(self._device), values.to(self._device)
        self._checked[layer] = True


class PrefixStore:
    """Stored prefixes of one model. Thread-safe, and several processes may use one folder.

    What is read with other numbers, another revision of the model, or another version of a library that computes it,
    lies apart: the last bits of K and V could differ.
    """

    def __init__(self, files: PrefixFiles, ref: ModelRef, model: Any) -> None:
        self.files = files
        self.geometry = Geometry.of(model.config)
        self._dtype, self._device = model.dtype, model.device
        capability = torch.backends.cpu.get_cpu_capability()
        numbers = (str(model.dtype), str(model.device.type), capability)
        made = (str(ref), *numbers, torch.__version__, transformers.__version__)
        self._namespace = hashlib.sha256("\0".join(made).encode()).hexdigest()[:32]
        self._ahead = ThreadPoolExecutor(1, "prefix-read-ahead")
        self._writer = ThreadPoolExecutor(1, "prefix-writer")
        self._pending = threading.BoundedSemaphore(_PENDING)

    def bytes_of(self, positions: int) -> int:
        """K and V of so many positions."""
        return positions * self.geometry.width * int(self._dtype.itemsize)

    def holds(self, text: StoredText, ids: Tensor) -> bool:
        """Whether there is a file of a prefix; what is in it is not looked at."""
        return self._path(text, ids).exists()

    def get(self, text: StoredText, ids: Tensor, layers: int) -> StoredKV | None:
        """K and V of a prefix, tokens `ids` (positions,) int64, that reads this text alone; None where it is a miss.

        Args:
            layers: it has at least so many, or it is a miss.
        """
        path = self._path(text, ids)
        try:
            found = self._open(path, ids, layers)
            found[0]  # how long it is, is then known
            os.utime(path)
        except FileNotFoundError:
            return None
        except DamagedPrefix:
            return None
        except (OSError, RuntimeError, SafetensorError, ValueError) as error:
            _discard(path, str(error) if isinstance(error, ValueError) else type(error).__name__)
            return None
        self._ahead.submit(found.read_ahead)
        return found

    def put(self, text: StoredText, ids: Tensor, kv: KV) -> bool:
        """Write K and V of every layer of a prefix; whether they are there then. Never raises for the disk's sake."""
        path, size = self._path(text, ids), self.bytes_of(len(ids))
        try:
            self.files.prepare(path)
            if not self.files.make_room(size):
                return False
            self._write(path, [(k.cpu().contiguous(), v.cpu().contiguous()) for k, v in kv])
        except (OSError, SafetensorError) as error:
            # The disk is full, say, or the folder went with its document.
            logger.warning("a prefix could not be stored: %s", type(error).__name__)
            return False
        return True

    def put_soon(self, text: StoredText, ids: Tensor, kv: KV) -> None:
        """As `put`, on a thread of its own; not at all where several wait for it already."""
        if self._pending.acquire(blocking=False):
            self._writer.submit(self._put_and_leave, text, ids, kv)

    def flush(self) -> None:
        """Wait until what `put_soon` took is written."""
        self._writer.submit(lambda: None).result()

    def _put_and_leave(self, text: StoredText, ids: Tensor, kv: KV) -> None:
        try:
            self.put(text, ids, kv)
        finally:
            self._pending.release()

    def _path(self, text: StoredText, ids: Tensor) -> Path:
        prompt = hashlib.sha256(ids.cpu().numpy().astype("<i8").tobytes()).hexdigest()[:32]
        return self.files.path(self._namespace, text, prompt)

    def _write(self, path: Path, layers: Sequence[Layer]) -> None:
        sums = ",".join(_sum(layer, *both) for layer, both in enumerate(layers))
        tensors = {
            f"{n}.{half}": t for n, both in enumerate(layers) for half, t in zip("kv", both, strict=True)
        }
        with atomic_write(path) as partial:
            partial.unlink(missing_ok=True)  # of a process that was killed and had this number
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
            save_file(tensors, partial, {"format": _FORMAT, "is": _name(path), "sums": sums})

    def _open(self, path: Path, ids: Tensor, layers: int) -> StoredKV:
        """Raises ValueError: the file is not what its name says."""
        stat = path.lstat()
        if stat.st_uid != os.geteuid() or not S_ISREG(stat.st_mode):  # opening a pipe would wait for ever
            raise ValueError("it is another's, or no file")
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            if told.get("format") != _FORMAT or told.get("is") != _name(path):
                raise ValueError("it is no prefix of this name")
            sums = told.get("sums", "").split(",")
            shape = (1, self.geometry.kv_heads, len(ids), self.geometry.head_dim)
            if not layers <= len(sums) <= self.geometry.layers:
                raise ValueError("it has another number of layers")
            found = [(file.get_tensor(f"{n}.k"), file.get_tensor(f"{n}.v")) for n in range(len(sums))]
        if any(half.shape != shape or half.dtype != self._dtype for layer in found for half in layer):
            raise ValueError("it has another shape")
        return StoredKV(path, found, sums, self._device)


def _name(path: Path) -> str:
    """What a file says of itself: a file under another name, or in another folder, is not taken for this one."""
    return "/".join((*path.parts[-3:-1], path.stem))


def _sum(layer: int, keys: Tensor, values: Tensor) -> str:
    """Finds damage, no forgery: who can write here can write the documents too."""
    found = xxhash.xxh3_64(seed=layer)
    for half in (keys, values):
        found.update(half.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _discard(path: Path, why: str) -> None:
    logger.warning("a stored prefix is removed: %s", why)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("and cannot be removed: %s", type(error).__name__)
