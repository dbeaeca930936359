"""The Sharer's side: gateway, access, documents, audit, and the Ray Serve deployment that runs the Sharer.

Importing it is cheap: names load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloud_node.config import CloudConfig
    from cloud_node.node import leave, run

__all__ = ["CloudConfig", "leave", "run"]

_HOMES = {"CloudConfig": "cloud_node.config", "leave": "cloud_node.node", "run": "cloud_node.node"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
