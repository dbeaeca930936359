"""From names to a Sharer and a Receiver that are ready: bundle, models, device and dtype in one call.

sharer, receiver = load_pair("qwen2.5-coder-0.5b--smollm2-135m")
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuser.bundle.bundle import BadBundle, Bundle
from fuser.kv.past import PrefixCache
from fuser.kv.prefix_files import PrefixFiles
from fuser.kv.prefix_store import PrefixStore
from fuser.models.directory import bundle_directory, find_model, model_ref, shipped_bundles
from fuser.models.load import DeviceName, DtypeName, computes, dtype_of, find_device, load_model
from fuser.receiver import Receiver
from fuser.sharer import Sharer
from kvwire.identity import ModelRef

__all__ = ["load_pair", "load_receiver", "load_sharers"]

logger = logging.getLogger(__name__)


def load_pair(
    bundle: str | Path,
    *,
    sharer: str | Path | None = None,
    receiver: str | Path | None = None,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
) -> tuple[Sharer, Receiver]:
    """Load both sides of a bundle onto one device, to run them in one process.

    Args:
        bundle: a directory, or the name of a shipped bundle.
        sharer: a directory, a model that `kvwire models fetch` brought, by name, or a Hugging Face id; by default the
            one that the bundle names. Nothing is fetched here.
        receiver: as `sharer`.
        device: where models and heads compute; "auto" is a GPU where there is one.
        dtype: what the models compute in; "auto" is bfloat16 where the device multiplies it, else float32.

    Raises:
        NoSuchDevice, UnknownModel, NotFetched, BadModelDirectory: as `fuser.models` raises them.
        BadBundle: the bundle cannot be read, or is for other models.
        ValueError: a dtype that the device does not take.
    """
    directory = _directory(bundle)
    names = Bundle.load(directory).config
    (one,) = load_sharers(sharer or names.sharer.name, [directory], device=device, dtype=dtype)
    return one, load_receiver(directory, receiver or names.receiver.name, device=device, dtype=dtype)


def load_receiver(
    bundle: str | Path,
    receiver: str | Path,
    *,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
) -> Receiver:
    """The Receiver of a bundle. Arguments and errors as `load_pair`."""
    where = find_device(device)
    found = dtype_of(dtype, where)
    directory = _directory(bundle)
    loaded = Bundle.load(directory)
    path = find_model(receiver)
    _check(directory, "Receiver", loaded.config.receiver, model_ref(path))
    model, tokenizer = load_model(path, device=str(where), dtype=found)
    _log("Receiver", path, model)
    return Receiver(model, tokenizer, loaded)


def load_sharers(
    sharer: str | Path,
    bundles: Sequence[str | Path],
    *,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
    prefix_cache_bytes: int = 0,
    prefix_files: PrefixFiles | None = None,
) -> list[Sharer]:
    """One Sharer for each of the bundles, all around one model, with one prefix cache.

    Args:
        prefix_cache_bytes: K and V of prefixes that are kept in memory; 0 keeps none.
        prefix_files: where those of stored documents are kept on disk; None keeps none.

    The other arguments and the errors are those of `load_pair`.
    """
    where = find_device(device)
    found = dtype_of(dtype, where)
    path = find_model(sharer)
    ref = model_ref(path)
    loaded = []
    for directory in map(_directory, bundles):
        loaded.append(Bundle.load(directory))
        _check(directory, "Sharer", loaded[-1].config.sharer, ref)
    model, tokenizer = load_model(path, device=str(where), dtype=found)
    _log("Sharer", path, model)
    prefixes = PrefixCache(prefix_cache_bytes)
    store = None if prefix_files is None else PrefixStore(prefix_files, ref, model)
    return [Sharer(model, tokenizer, bundle, prefixes, store) for bundle in loaded]


def _directory(bundle: str | Path) -> Path:
    directory = bundle_directory(bundle)
    if not directory.is_dir():
        shipped = ", ".join(shipped_bundles())
        raise BadBundle(f"{bundle} is no directory, and no bundle that ships ({shipped})")
    return directory


def _check(directory: Path, who: str, wanted: ModelRef, found: ModelRef) -> None:
    if wanted != found:
        raise BadBundle(f"{directory} is for the {who} {wanted}, not for {found}")


def _log(who: str, path: Path, model: Any) -> None:
    logger.info("the %s %s computes on %s", who, path.name, computes(model))
