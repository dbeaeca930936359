"""Profiles are measured on training data alone: choosing a plan is a kind of training"""

from __future__ import annotations

import re
from pathlib import Path

from fuser.lab.data.hub import PREFIX, HubName
from fuser.lab.data.load import RECORDS
from fuser.lab.data.records.generate import TRAINING

_OTHER = re.compile(r"(dev|test|valid|val|eval)(set)?|validation|evaluation|held_?out")
"""Words in a file's name, or its folder's, that mark it as no training data."""


def check_training(source: str) -> None:
    """Refuse data that is marked as kept from training.

    Raises:
        ValueError: names the mark and what to give instead.
    """
    if source.startswith(RECORDS):
        split = source.removeprefix(RECORDS)
        found = None if split in TRAINING else split
    elif source.startswith(PREFIX):
        named = HubName.parse(source).split
        found = None if named is None or named.startswith("train") else named
    else:
        path = Path(source)
        words = re.split(
            r"[^a-z_]+|(?<!held)_|_(?!out)", f"{path.parent.name}/{path.name}".lower().replace("-", "_")
        )
        found = next((word for word in words if _OTHER.fullmatch(word)), None)
    if found is not None:
        raise ValueError(
            f"{source} is marked {found!r}: plans are chosen on training data, so that what is kept from training "
            f"can still judge them. Give {RECORDS}train or a training split"
        )
