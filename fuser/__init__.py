"""The Fuser: what the Sharer cuts, what the heads translate, what the Receiver takes in. Knows no network.

The names below are its doors; the nodes use no others. Importing it is cheap: names load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuser.bundle.bundle import BadBundle, Bundle
    from fuser.bundle.config import ConfidenceConfig
    from fuser.bundle.plans import BadTable, PlanRow, PlanTable
    from fuser.kv.generate import Choose, Sampling, Signals
    from fuser.kv.geometry import prefill_bytes
    from fuser.kv.prefix_files import PrefixFiles, PrefixFrom, StoredText
    from fuser.models.directory import ModelError, NoSuchDevice, bundle_directory, find_model, model_ref
    from fuser.models.load import DeviceName, DtypeName, computes, free_memory
    from fuser.pair import load_pair, load_receiver, load_sharers
    from fuser.reader import Caller
    from fuser.receiver import Begun, Prefilled, Receiver
    from fuser.sharer import Cut, Sharer, SharerPrompt
    from fuser.slice_specs import SliceLayout

__all__ = [
    "BadBundle",
    "BadTable",
    "Begun",
    "Bundle",
    "Caller",
    "Choose",
    "ConfidenceConfig",
    "Cut",
    "DeviceName",
    "DtypeName",
    "ModelError",
    "NoSuchDevice",
    "PlanRow",
    "PlanTable",
    "PrefixFiles",
    "PrefixFrom",
    "Prefilled",
    "Receiver",
    "Sampling",
    "Sharer",
    "SharerPrompt",
    "SliceLayout",
    "StoredText",
    "Signals",
    "bundle_directory",
    "computes",
    "find_model",
    "free_memory",
    "load_pair",
    "load_receiver",
    "load_sharers",
    "model_ref",
    "prefill_bytes",
]

_HOMES = {
    "BadBundle": "fuser.bundle.bundle",
    "BadTable": "fuser.bundle.plans",
    "Begun": "fuser.receiver",
    "Bundle": "fuser.bundle.bundle",
    "Caller": "fuser.reader",
    "Choose": "fuser.kv.generate",
    "ConfidenceConfig": "fuser.bundle.config",
    "Cut": "fuser.sharer",
    "DeviceName": "fuser.models.load",
    "DtypeName": "fuser.models.load",
    "ModelError": "fuser.models.directory",
    "NoSuchDevice": "fuser.models.directory",
    "PlanRow": "fuser.bundle.plans",
    "PlanTable": "fuser.bundle.plans",
    "PrefixFiles": "fuser.kv.prefix_files",
    "PrefixFrom": "fuser.kv.prefix_files",
    "Prefilled": "fuser.receiver",
    "Receiver": "fuser.receiver",
    "Sampling": "fuser.kv.generate",
    "Sharer": "fuser.sharer",
    "SharerPrompt": "fuser.sharer",
    "SliceLayout": "fuser.slice_specs",
    "StoredText": "fuser.kv.prefix_files",
    "Signals": "fuser.kv.generate",
    "bundle_directory": "fuser.models.directory",
    "computes": "fuser.models.load",
    "find_model": "fuser.models.directory",
    "free_memory": "fuser.models.load",
    "load_pair": "fuser.pair",
    "load_receiver": "fuser.pair",
    "load_sharers": "fuser.pair",
    "model_ref": "fuser.models.directory",
    "prefill_bytes": "fuser.kv.geometry",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
