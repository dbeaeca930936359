"""The Fuser: what the Sharer cuts, what the heads translate, what the Receiver takes in. Knows no network.

The names below are its doors; the nodes use no others. Importing it is cheap: names load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuser.bundle.bundle import BadBundle, Bundle
    from fuser.bundle.plans import PlanRow, PlanTable
    from fuser.bundle.shipped import bundle_directory
    from fuser.layout import SliceLayout
    from fuser.models.dtype import DeviceName, DtypeName, computes
    from fuser.models.load import resolve
    from fuser.models.reference import model_ref
    from fuser.pair import load_pair, load_receiver, load_sharers
    from fuser.receiver import Begun, Draft, Receiver
    from fuser.sharer import Cut, Sharer

__all__ = [
    "BadBundle",
    "Begun",
    "Bundle",
    "Cut",
    "DeviceName",
    "Draft",
    "DtypeName",
    "PlanRow",
    "PlanTable",
    "Receiver",
    "Sharer",
    "SliceLayout",
    "bundle_directory",
    "computes",
    "load_pair",
    "load_receiver",
    "load_sharers",
    "model_ref",
    "resolve",
]

_HOMES = {
    "BadBundle": "fuser.bundle.bundle",
    "Begun": "fuser.receiver",
    "Bundle": "fuser.bundle.bundle",
    "Cut": "fuser.sharer",
    "DeviceName": "fuser.models.dtype",
    "Draft": "fuser.receiver",
    "DtypeName": "fuser.models.dtype",
    "PlanRow": "fuser.bundle.plans",
    "PlanTable": "fuser.bundle.plans",
    "Receiver": "fuser.receiver",
    "Sharer": "fuser.sharer",
    "SliceLayout": "fuser.layout",
    "bundle_directory": "fuser.bundle.shipped",
    "computes": "fuser.models.dtype",
    "load_pair": "fuser.pair",
    "load_receiver": "fuser.pair",
    "load_sharers": "fuser.pair",
    "model_ref": "fuser.models.reference",
    "resolve": "fuser.models.load",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
