"""The Receiver's side: client SDK, assistant, local API. Importing it is cheap: names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_node.answer import Answer
    from edge_node.ask import Ask
    from edge_node.assistant import Assistant, Conversation
    from edge_node.asynchronous import AsyncAnswerStream, AsyncAssistant, AsyncConversation
    from edge_node.client import AsyncClient, Client
    from edge_node.config import EdgeConfig
    from edge_node.history import ChatTurn
    from edge_node.link import Estimate, Link
    from edge_node.serve import run
    from edge_node.stream import AnswerStream
    from fuser import BadBundle, BadTable, ModelError, NoSuchDevice, Sampling
    from fuser.config import BadConfig
    from kvwire.errors import (
        AccessDenied,
        AuditUnavailable,
        BadChecksum,
        BadHeader,
        BadPayload,
        Busy,
        Cancelled,
        DeadlineExceeded,
        DocumentsUnavailable,
        Draining,
        ExportDenied,
        ExposureSpent,
        IncompatiblePeer,
        InternalError,
        InvalidRequest,
        KvwireError,
        MissingDeadline,
        NoPassage,
        NotFound,
        RelayDisabled,
        TokenRefused,
        TooLarge,
        Unreachable,
        Unsupported,
        WireError,
    )
    from kvwire.messages import Found
    from kvwire.plan import Plan
    from kvwire.section import Role, Section, Visibility
    from kvwire.segment import SliceKind

__all__ = [
    # what is asked
    "Ask",
    "ChatTurn",
    "Section",
    "Role",
    "Visibility",
    "SliceKind",
    "Plan",
    "Sampling",
    # who answers
    "Assistant",
    "AsyncAssistant",
    "Conversation",
    "AsyncConversation",
    "EdgeConfig",
    "run",
    # what comes
    "Answer",
    "AnswerStream",
    "AsyncAnswerStream",
    "Found",
    # the cloud alone
    "Client",
    "AsyncClient",
    "Link",
    "Estimate",
    # what goes wrong
    "KvwireError",
    "AccessDenied",
    "AuditUnavailable",
    "BadChecksum",
    "BadHeader",
    "BadPayload",
    "Busy",
    "Cancelled",
    "DeadlineExceeded",
    "DocumentsUnavailable",
    "Draining",
    "ExportDenied",
    "ExposureSpent",
    "IncompatiblePeer",
    "InternalError",
    "InvalidRequest",
    "MissingDeadline",
    "NoPassage",
    "NotFound",
    "RelayDisabled",
    "TokenRefused",
    "TooLarge",
    "Unreachable",
    "Unsupported",
    "WireError",
    "BadConfig",
    "BadBundle",
    "BadTable",
    "ModelError",
    "NoSuchDevice",
]

_HOMES = {
    "Answer": "edge_node.answer",
    "Ask": "edge_node.ask",
    "Assistant": "edge_node.assistant",
    "AsyncAnswerStream": "edge_node.asynchronous",
    "AsyncAssistant": "edge_node.asynchronous",
    "AsyncClient": "edge_node.client",
    "Client": "edge_node.client",
    "AsyncConversation": "edge_node.asynchronous",
    "EdgeConfig": "edge_node.config",
    "Conversation": "edge_node.assistant",
    "ChatTurn": "edge_node.history",
    "Estimate": "edge_node.link",
    "Link": "edge_node.link",
    "run": "edge_node.serve",
    "AnswerStream": "edge_node.stream",
    "BadBundle": "fuser",
    "BadTable": "fuser",
    "ModelError": "fuser",
    "NoSuchDevice": "fuser",
    "Sampling": "fuser",
    "BadConfig": "fuser.config",
    "AccessDenied": "kvwire.errors",
    "AuditUnavailable": "kvwire.errors",
    "BadChecksum": "kvwire.errors",
    "BadHeader": "kvwire.errors",
    "BadPayload": "kvwire.errors",
    "Busy": "kvwire.errors",
    "Cancelled": "kvwire.errors",
    "DeadlineExceeded": "kvwire.errors",
    "DocumentsUnavailable": "kvwire.errors",
    "Draining": "kvwire.errors",
    "ExportDenied": "kvwire.errors",
    "ExposureSpent": "kvwire.errors",
    "IncompatiblePeer": "kvwire.errors",
    "InternalError": "kvwire.errors",
    "InvalidRequest": "kvwire.errors",
    "KvwireError": "kvwire.errors",
    "MissingDeadline": "kvwire.errors",
    "NoPassage": "kvwire.errors",
    "NotFound": "kvwire.errors",
    "RelayDisabled": "kvwire.errors",
    "TokenRefused": "kvwire.errors",
    "TooLarge": "kvwire.errors",
    "Unreachable": "kvwire.errors",
    "Unsupported": "kvwire.errors",
    "WireError": "kvwire.errors",
    "Found": "kvwire.messages",
    "Plan": "kvwire.plan",
    "Role": "kvwire.section",
    "Section": "kvwire.section",
    "Visibility": "kvwire.section",
    "SliceKind": "kvwire.segment",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
