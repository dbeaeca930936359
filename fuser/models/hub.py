"""The first source: the model's own file on the Hugging Face Hub, at a pinned commit."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from fuser.models.errors import FetchFailed
from fuser.models.folder import missing_parts
from fuser.models.progress import Progress
from fuser.models.registry import HubFile, KnownModel

PROBE_SECONDS = 3.0
HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]


def fetch_from_hub(model: KnownModel, path: Path, progress: Progress) -> None:
    """Download `model.hub` to `path`, unverified. One short question first: an absent Hub costs seconds.

    Raises `FetchFailed`.
    """
    if model.hub is None:
        raise FetchFailed("no file with the pinned bytes is known there")
    _probe(model.hub)
    from huggingface_hub import hf_hub_download

    progress.say(f"fetching {model.filename} from the Hub ({model.hub.repository})")
    folder = path.parent / f"{model.name}.hub"  # stays after a failure: the Hub client resumes in it
    try:
        got = hf_hub_download(
            model.hub.repository,
            model.hub.filename,
            revision=model.hub.revision,
            local_dir=folder,
            endpoint=_endpoint(),
        )
    except Exception as error:  # whatever stops this source, the next one is tried
        raise FetchFailed(f"the download stopped ({_short(error)})") from error
    Path(got).replace(path)
    shutil.rmtree(folder, ignore_errors=True)


def snapshot(name: str, progress: Progress) -> Path:
    """Directory of the Hub model `name` ("owner/model" or "owner/model@revision"), from the local cache
    if it is there. Only safetensors, configs and tokenizer files are fetched: nothing that carries code.

    Raises `FetchFailed`.
    """
    if (local := local_snapshot(name)) is not None:
        return local
    repository, revision = _split(name)
    try:
        _probe(HubFile(repository, revision or "main", "config.json"))
    except FetchFailed as error:
        raise FetchFailed(
            f"{name} is not in the local Hugging Face cache, and on the Hub {error}; check the network"
        ) from error
    from huggingface_hub import snapshot_download

    progress.say(f"fetching {name} from the Hub")
    try:
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=_WANTED, endpoint=_endpoint())
        )
    except Exception as error:
        raise FetchFailed(f"{name}: the download stopped ({_short(error)}); run it again") from error


def local_snapshot(name: str) -> Path | None:
    """Directory of the Hub model `name` in the local Hugging Face cache, if all that is wanted of it is there."""
    from huggingface_hub import snapshot_download

    repository, revision = _split(name)
    try:
        local = Path(
            snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=_WANTED)
        )
    except (OSError, ValueError):
        return None
    whole = (
        (local / "config.json").is_file() and any(local.glob("*.safetensors")) and not missing_parts(local)
    )
    return local if whole else None


def _split(name: str) -> tuple[str, str | None]:
    matched = HUB_ID.fullmatch(name)
    if matched is None:
        raise ValueError(f"{name!r} is not a Hugging Face id")
    return matched[1], matched[2]


def _probe(file: HubFile) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        url = hf_hub_url(file.repository, file.filename, revision=file.revision, endpoint=_endpoint())
        get_hf_file_metadata(url, timeout=PROBE_SECONDS)
    except Exception as error:  # DNS, TLS, proxy, HTTP status, offline mode: each has its own class
        raise FetchFailed(f"{file.repository} is not reachable there ({_short(error)})") from error


def _endpoint() -> str | None:
    """A mirror of the Hub, if one is set; read now, where the client reads it once when it is imported."""
    return os.environ.get("HF_ENDPOINT")


def _short(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:120]}" if text else type(error).__name__
