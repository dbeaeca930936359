"""The Receiver's side: client SDK, assistant, local API. Importing it is cheap: names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_node.answer import Answer
    from edge_node.ask import Ask
    from edge_node.assistant import Assistant
    from edge_node.asynchronous import AsyncAssistant
    from edge_node.client import AsyncClient, Client
    from edge_node.config import EdgeConfig
    from edge_node.conversation import Conversation
    from edge_node.history import Turn
    from edge_node.serve import run

__all__ = [
    "Answer",
    "Ask",
    "Assistant",
    "AsyncAssistant",
    "AsyncClient",
    "Client",
    "Conversation",
    "EdgeConfig",
    "Turn",
    "run",
]

_HOMES = {
    "Answer": "edge_node.answer",
    "Ask": "edge_node.ask",
    "Assistant": "edge_node.assistant",
    "AsyncAssistant": "edge_node.asynchronous",
    "AsyncClient": "edge_node.client",
    "Client": "edge_node.client",
    "Conversation": "edge_node.conversation",
    "EdgeConfig": "edge_node.config",
    "Turn": "edge_node.history",
    "run": "edge_node.serve",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
