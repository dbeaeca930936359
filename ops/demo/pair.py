"""The pair that the demo runs, and the bundle that ships for it."""

import json
from pathlib import Path
from typing import Final

from fuser.models.directory import SHIPPED

SHARER: Final = "qwen2.5-coder-0.5b-instruct"
RECEIVER: Final = "smollm2-135m-instruct"
_CALIBRATED: Final = "transform-2"
BUNDLE: Final = SHIPPED / "qwen2.5-coder-0.5b--smollm2-135m"
LARGER: Final = "qwen2.5-coder-1.5b--qwen2.5-coder-0.5b"
"""The bundle to recommend, by name; of its models the small pair has one."""


def models_of(bundle: Path) -> tuple[str, str]:
    """Names of the Sharer and the Receiver that a bundle is for; its tensors are not read."""
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    return config["sharer"]["name"], config["receiver"]["name"]


def codec_of(bundle: Path) -> str:
    """The codec to show a bundle with: a calibrated one if it has any."""
    from fuser.bundle.bundle import Bundle

    return _CALIBRATED if _CALIBRATED in {codec.name for codec in Bundle.load(bundle).codecs()} else "int8"
