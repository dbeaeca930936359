"""From a name, a Hub id or a directory to a model in memory.

    path = resolve("smollm2-135m-instruct")
    model, tokenizer = load_model(path)

Loading takes safetensors only and runs no code that came with a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuser.models.cache import model_directory
from fuser.models.convert import is_converted
from fuser.models.errors import BadModelDirectory, FetchFailed, UnknownModel
from fuser.models.fetch import fetch
from fuser.models.folder import checked, without_code
from fuser.models.hub import HUB_ID, local_snapshot, snapshot
from fuser.models.progress import Progress
from fuser.models.reference import model_ref
from fuser.models.registry import KNOWN_MODELS

__all__ = [
    "find",
    "has_tokenizer",
    "load_config",
    "load_model",
    "load_tokenizer",
    "load_weights",
    "model_ref",
    "resolve",
]

if TYPE_CHECKING:
    import torch


def resolve(name_or_path: str | Path, progress: bool = True) -> Path:
    """Directory of a model: a known name, a directory, or a Hugging Face id ("owner/model[@revision]").

    Known names are fetched and converted on first use.
    Raises `UnknownModel`, `BadModelDirectory`, `FetchFailed`.
    """
    name = str(name_or_path)
    if name in KNOWN_MODELS:
        return fetch(KNOWN_MODELS[name], Progress(progress))
    path = Path(name).expanduser()
    if path.is_dir():
        return checked(path)
    if HUB_ID.fullmatch(name):
        return checked(snapshot(name, Progress(progress)))
    raise UnknownModel(name, tuple(KNOWN_MODELS))


def find(name_or_path: str | Path) -> Path:
    """As `resolve`, but fetches nothing: raises `FetchFailed` for a model that is not on this machine."""
    name = str(name_or_path)
    if (model := KNOWN_MODELS.get(name)) is not None:
        directory = model_directory(name)
        if not is_converted(directory, model):
            raise FetchFailed(f"{name} is not on this machine; run `kvwire models fetch {name}`")
        return directory
    if not Path(name).expanduser().is_dir() and HUB_ID.fullmatch(name):
        if (local := local_snapshot(name)) is None:
            raise FetchFailed(f"{name} is not on this machine; run `kvwire models fetch {name}`")
        return checked(local)
    return resolve(name, progress=False)


def load_model(
    path: str | Path, *, device: str = "cpu", dtype: torch.dtype | None = None, attention: str = "sdpa"
) -> tuple[Any, Any]:
    """(model, tokenizer) of the directory `path`: frozen, in eval mode, float32 unless `dtype` is given."""
    return load_weights(path, device=device, dtype=dtype, attention=attention), load_tokenizer(path)


def load_weights(
    path: str | Path, *, device: str = "cpu", dtype: torch.dtype | None = None, attention: str = "sdpa"
) -> Any:
    """The model alone, as in `load_model`; the directory may lack a tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    directory = checked(Path(path))
    config = load_config(directory)
    with _no_bars(), torch.device("cpu"):
        model = AutoModelForCausalLM.from_pretrained(
            directory,
            config=config,
            dtype=dtype or torch.float32,
            attn_implementation=attention,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    return model.to(device).eval().requires_grad_(False)


def load_config(path: str | Path) -> Any:
    """The Hugging Face config of the directory `path`, which may lack weights. Raises `BadModelDirectory`."""
    from transformers import AutoConfig

    file = Path(path) / "config.json"
    if not file.is_file():
        raise BadModelDirectory(f"{path} has no config.json: it is not a model in the Hugging Face format")
    without_code(Path(path))
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except ValueError as error:
        raise BadModelDirectory(f"{file}: {error}") from error


def has_tokenizer(path: str | Path) -> bool:
    """Whether a tokenizer lies in the directory `path`."""
    names = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
    return any((Path(path) / name).is_file() for name in names)


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer of the directory `path`, always a fast one (it gives offsets)."""
    from transformers import AutoTokenizer

    if not has_tokenizer(checked(Path(path))):  # or the library would make an empty one up
        raise BadModelDirectory(f"{path} has no tokenizer.json")
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise BadModelDirectory(f"{path} has a tokenizer without offsets; a tokenizer.json is needed")
    return tokenizer


@contextmanager
def _no_bars() -> Iterator[None]:
    """Loading from disk takes a second or two; the library's bar would go over the caller's own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
