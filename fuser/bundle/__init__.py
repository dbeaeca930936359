"""A bundle on disk: config, tensors, codec state, plans; and those that ship, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SHIPPED: Final = Path(__file__).parent.parent / "bundles"


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
