"""What can go wrong between a model's name and a loaded model. Every message says what to do next."""

from __future__ import annotations


class ModelError(Exception):
    """Base of everything raised by `fuser.models`."""


class UnknownModel(ModelError):
    """A name that is neither known, nor a directory, nor a Hub id."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f"{name!r} is no known model, no directory and no Hugging Face id. "
            f"Give one of: {', '.join(known)}; or an id such as 'owner/model'; "
            "or the path of a directory with config.json and *.safetensors."
        )


class FetchFailed(ModelError):
    """No source gave the file."""


class HashMismatch(ModelError):
    """Bytes that are not the pinned bytes. They have been deleted."""


class MissingPart(ModelError):
    """A wheel without the part it is pinned for."""


class BadGguf(ModelError):
    """A GGUF file that cannot be read, or of an architecture this loader does not know."""


class BadModelDirectory(ModelError):
    """A directory that does not hold a model."""


class NoSuchDevice(ModelError, ValueError):
    """A device that this machine, or this build of torch, does not have."""
