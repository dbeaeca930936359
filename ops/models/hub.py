"""The first source: the model's own file on the Hugging Face Hub, at a pinned commit."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fuser.models.directory import HUB_FILES, local_snapshot, split_hub_id
from ops.models.errors import FetchFailed
from ops.models.progress import Progress
from ops.models.registry import HubFile, KnownModel

PROBE_SECONDS = 3.0


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
    repository, revision = split_hub_id(name)
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
            snapshot_download(repository, revision=revision, allow_patterns=HUB_FILES, endpoint=_endpoint())
        )
    except Exception as error:
        raise FetchFailed(f"{name}: the download stopped ({_short(error)}); run it again") from error


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
