"""A model on this machine: where its directory is, what the directory must hold, and which model it is, exactly.

And where a bundle is: those that ship are found by name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from kvwire.identity import ModelRef

SHIPPED: Final = Path(__file__).parent.parent / "bundles"


def cache_directory() -> Path:
    """The cache directory; it need not exist yet."""
    given = os.environ.get("KVWIRE_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "kvwire"


def model_directory(name: str) -> Path:
    """Where the converted model `name` is, or will be."""
    return cache_directory() / "models" / name


def sha256_of(path: Path, advance: Callable[[int], None] = lambda count: None) -> str:
    """Hex SHA-256 of a file, read in pieces of 4 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(4 << 20):
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest()


class ModelError(Exception):
    """Base of everything that is raised between a model's name and a loaded model. Every message says what to do."""


class UnknownModel(ModelError):
    """A name that is neither a directory nor a model's."""


class NotFetched(ModelError):
    """A model that is not on this machine."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not on this machine; run `kvwire models fetch {name}`")


class BadModelDirectory(ModelError):
    """A directory that does not hold a model."""


class NoSuchDevice(ModelError, ValueError):
    """A device that this machine, or this build of torch, does not have."""


MARK = "kvwire.json"
"""File of a converted model that names it: see `ops.models.convert`."""
HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]
"""What is taken of a Hub model: nothing that carries code."""
_NAME = re.compile(r"\w[\w.-]*")
INDEX = "model.safetensors.index.json"


def find_model(name_or_path: str | Path) -> Path:
    """Directory of a model: itself, a model that `kvwire models` fetched, by name, or a Hugging Face id
    ("owner/model[@revision]") in the local Hugging Face cache. Nothing is fetched.

    Raises:
        NotFetched: an id that the cache does not hold whole.
        UnknownModel: neither an id nor a directory nor a model that was fetched.
        BadModelDirectory: the directory does not hold a model.
    """
    name = str(name_or_path)
    if _NAME.fullmatch(name) and (model_directory(name) / MARK).is_file():
        return checked(model_directory(name))
    path = Path(name).expanduser()
    if path.is_dir():
        return checked(path)
    if HUB_ID.fullmatch(name) is None:
        raise UnknownModel(
            f"{name!r} is no directory, no Hugging Face id and no model that was fetched to this machine; "
            "`kvwire models list` has the known names, `kvwire models fetch NAME` brings one"
        )
    if (local := local_snapshot(name)) is None:
        raise NotFetched(name)
    return checked(local)


def local_snapshot(name: str) -> Path | None:
    """Directory of the Hub model `name` in the local Hugging Face cache, if all that is wanted of it is there."""
    from huggingface_hub import snapshot_download

    repository, revision = split_hub_id(name)
    try:
        local = Path(
            snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=HUB_FILES)
        )
    except (OSError, ValueError):
        return None
    whole = (
        (local / "config.json").is_file() and any(local.glob("*.safetensors")) and not missing_parts(local)
    )
    return local if whole else None


def split_hub_id(name: str) -> tuple[str, str | None]:
    """Repository and revision of a Hugging Face id. Raises ValueError."""
    matched = HUB_ID.fullmatch(name)
    if matched is None:
        raise ValueError(f"{name!r} is not a Hugging Face id")
    return matched[1], matched[2]


def checked(path: Path) -> Path:
    """`path`, if it is a whole model in the Hugging Face format that needs no code of its own.

    Raises `BadModelDirectory`.
    """
    if not (path / "config.json").is_file():
        raise BadModelDirectory(f"{path} has no config.json: it is not a model in the Hugging Face format")
    without_code(path)
    if not any(path.glob("*.safetensors")):
        raise BadModelDirectory(
            f"{path} has no *.safetensors; convert the weights first (pickled weights are refused)"
        )
    if missing := missing_parts(path):
        raise BadModelDirectory(f"{path} lacks {', '.join(missing)}, which {INDEX} names; fetch it again")
    return path


def without_code(path: Path) -> None:
    """Raise `BadModelDirectory` where a file of the folder would have code run that came with the model."""
    for name in ("config.json", "tokenizer_config.json"):
        file = path / name
        if file.is_file() and "auto_map" in _read(file):
            raise BadModelDirectory(
                f"{file} has `auto_map`: the model wants code run that came with it, and none is. Where transformers "
                "knows the model's type itself, take `auto_map` out of the file"
            )


def missing_parts(path: Path) -> list[str]:
    """The files of weights that the index names and the folder lacks; none where there is no index."""
    index = path / INDEX
    if not index.is_file():
        return []
    named = _read(index).get("weight_map", {})
    return sorted(name for name in set(named.values()) if not (path / name).is_file())


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadModelDirectory(f"{file} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise BadModelDirectory(f"{file} is no JSON object")
    return values


_SNAPSHOT = re.compile(r"models--([^/]+)/snapshots/[^/]+$")


def model_ref(path: str | Path) -> ModelRef:
    """Name and revision of the model in directory `path`.

    A model that this package converted: its registry name and the SHA-256 of its GGUF file. Any other: the
    Hub id or the directory's name, and one SHA-256 over names and contents of config.json and *.safetensors,
    kept in the cache until a file's size or time changes.
    """
    directory = Path(path)
    mark = directory / MARK
    if mark.is_file():
        values = json.loads(mark.read_text(encoding="utf-8"))
        return ModelRef(name=values["name"], revision=values["revision"])
    return ModelRef(name=_name(directory), revision=_revision(directory))


def _name(directory: Path) -> str:
    hub = _SNAPSHOT.search(directory.absolute().as_posix())
    return hub[1].replace("--", "/", 1) if hub else directory.resolve().name


def _revision(directory: Path) -> str:
    files = [directory / "config.json", *sorted(directory.glob("*.safetensors"))]
    seen = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    key = hashlib.sha256(json.dumps(seen).encode()).hexdigest()
    kept = cache_directory() / "revisions" / key
    if kept.is_file():
        return kept.read_text()
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{sha256_of(file)}\n".encode())
    revision = digest.hexdigest()
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_name(f".{key}.{os.getpid()}")
    temporary.write_text(revision)
    temporary.replace(kept)
    return revision


def shipped_bundles() -> dict[str, Path]:
    """Directories of the shipped bundles by name, for instance "qwen2.5-coder-0.5b--smollm2-135m"."""
    return {file.parent.name: file.parent for file in sorted(SHIPPED.glob("*/config.json"))}


def bundle_directory(name: str | Path, beside: Path | None = None) -> Path:
    """The directory of a bundle: the one at that path, else the shipped bundle of that name.

    Args:
        beside: where a relative path counts from; by default the working directory.
    """
    path = (beside or Path()) / Path(name).expanduser()
    return path if path.is_dir() else shipped_bundles().get(str(name), path)
