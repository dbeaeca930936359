"""The Fuser: what the Sharer cuts, what the heads translate, what the Receiver takes in. Knows no network.

Importing it is cheap: names load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuser.bundle import BadBundle, Bundle
    from fuser.pair import load_pair, load_receiver, load_sharers
    from fuser.receiver import Draft, Receiver
    from fuser.sharer import Cut, Sharer

__all__ = [
    "BadBundle",
    "Bundle",
    "Cut",
    "Draft",
    "Receiver",
    "Sharer",
    "load_pair",
    "load_receiver",
    "load_sharers",
]

_HOMES = {
    "BadBundle": "fuser.bundle",
    "Bundle": "fuser.bundle",
    "Cut": "fuser.sharer",
    "Draft": "fuser.receiver",
    "Receiver": "fuser.receiver",
    "Sharer": "fuser.sharer",
    "load_pair": "fuser.pair",
    "load_receiver": "fuser.pair",
    "load_sharers": "fuser.pair",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
