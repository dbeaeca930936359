"""Files that are there whole or not at all, whenever the process is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` when the block ends, and not when it raises."""
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    partial.replace(path)
