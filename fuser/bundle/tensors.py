"""The tensors of a bundle: how they are stored, checked, read and hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fuser.atomic import atomic_write, file_bytes

SMALL_DTYPES = (torch.float16, torch.bfloat16)
_BUNDLE = "bundle"
_LARGE_ELEMENTS = (
    1 << 14
)  # below this a tensor stays in single precision: it saves nothing, and gates would underflow


class BadBundle(ValueError):
    """A bundle cannot be read or written; the message names the file and the key or tensor."""


def as_stored(
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None,
    kept: Mapping[str, torch.dtype],
    trained: Collection[str],
) -> dict[str, Tensor]:
    """The tensors as they go to disk, on the CPU, by name.

    Args:
        dtype: for the large ones among `trained`; where a number would overflow, that tensor stays float32.
        kept: without `dtype`, the dtype that a tensor had when it was read.
        trained: names of weights; the rest (statistics) are stored as they are.

    Raises:
        BadBundle: a tensor is not finite, or the dtype is none of float32, float16 and bfloat16.
    """
    if dtype not in (None, torch.float32, *SMALL_DTYPES):
        raise BadBundle(f"bundles are stored in float32, float16 or bfloat16, not {dtype}")
    stored: dict[str, Tensor] = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        check_finite(name, tensor)
        if dtype is None:
            stored[name] = tensor.to(kept.get(name, tensor.dtype))
        elif dtype in SMALL_DTYPES and name in trained and tensor.numel() >= _LARGE_ELEMENTS:
            small = tensor.to(dtype)
            stored[name] = small if bool(small.isfinite().all()) else tensor
        else:
            stored[name] = tensor
    return stored


def digest(config: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the config text and every tensor's name, dtype, shape and bytes, in name order."""
    total = hashlib.sha256()
    parts: list[list[object]] = [[n, str(t.dtype), list(t.shape)] for n, t in sorted(tensors.items())]
    head = json.dumps([config, parts], ensure_ascii=True).encode()
    total.update(len(head).to_bytes(8, "little") + head)
    for _, tensor in sorted(tensors.items()):
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def write(path: Path, tensors: Mapping[str, Tensor], bundle: str) -> None:
    """Write a safetensors file, which is there whole or not at all; its header tells `bundle`, the digest."""
    with atomic_write(path) as partial:
        partial.write_bytes(save(dict(tensors), {_BUNDLE: bundle}))


def read(path: Path, expected: Mapping[str, Tensor], config: str) -> tuple[dict[str, Tensor], str]:
    """Read a safetensors file that must hold exactly the tensors of `expected` (meta device will do), and their digest.

    A tensor may be stored in float16 or bfloat16 where float32 is expected. Shapes are compared in the file's
    header, before any tensor is read; the library checks that the header's sizes fill the file exactly.

    Raises:
        BadBundle: naming the file and what is missing, unknown, of a wrong shape or dtype, or not finite; or it was
            written with another config or other numbers than there are now.
    """
    try:
        file_bytes(path)
        with safe_open(path, framework="pt", device="cpu") as file:
            told = (file.metadata() or {}).get(_BUNDLE)
            check_names(path, set(file.keys()), set(expected))
            for name, wanted in sorted(expected.items()):
                shape = tuple(file.get_slice(name).get_shape())
                if shape != tuple(wanted.shape):
                    raise BadBundle(f"{path}: {name} is {shape}, the config says {tuple(wanted.shape)}")
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in sorted(expected)}
    except (OSError, SafetensorError) as error:
        raise BadBundle(f"{path}: {error}") from error
    for name, tensor in tensors.items():
        wanted_dtype = expected[name].dtype
        narrowed = wanted_dtype == torch.float32 and tensor.dtype in SMALL_DTYPES
        if tensor.dtype != wanted_dtype and not narrowed:
            raise BadBundle(f"{path}: {name} is {tensor.dtype}, expected {wanted_dtype}")
        check_finite(name, tensor, f"{path}: ")
    if (found := digest(config, tensors)) != told:
        raise BadBundle(f"{path}: it and the config beside it are not of one bundle; write the bundle again")
    return tensors, found


def check_names(path: Path, found: set[str], wanted: set[str]) -> None:
    """Raise BadBundle where a file has not exactly the tensors that are wanted."""
    if wanted - found:
        raise BadBundle(f"{path}: missing tensor {min(wanted - found)}")
    if found - wanted:
        raise BadBundle(f"{path}: unknown tensor {min(found - wanted)}")


def check_finite(name: str, tensor: Tensor, where: str = "") -> None:
    """Raise BadBundle where a tensor has numbers that are not finite."""
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise BadBundle(f"{where}{name} has numbers that are not finite")
