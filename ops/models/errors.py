"""What can go wrong while a model is brought onto this machine. Every message says what to do next."""

from fuser.models.directory import ModelError


class FetchFailed(ModelError):
    """No source gave the file."""


class HashMismatch(ModelError):
    """Bytes that are not the pinned bytes. They have been deleted."""


class MissingPart(ModelError):
    """A wheel without the part it is pinned for."""


class BadGguf(ModelError):
    """A GGUF file that cannot be read, or of an architecture this loader does not know."""
