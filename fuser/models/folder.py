"""What a model's folder must hold, and must not, before anything of it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fuser.models.errors import BadModelDirectory

INDEX = "model.safetensors.index.json"


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
