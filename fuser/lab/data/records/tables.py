"""The words, phrasings and neutral sentences of the generated records, as the files beside this one hold them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def read_toml(name: str) -> dict[str, Any]:
    """A TOML file of this folder."""
    return tomllib.loads(read_text(name))


def read_text(name: str) -> str:
    """A text file of this folder."""
    return (_HERE / name).read_text(encoding="utf-8")


def words_of(text: str) -> list[str]:
    """Words with commas between, over as many lines as they take."""
    return [" ".join(word.split()) for word in text.split(",")]
