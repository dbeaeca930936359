"""The Sharer's side: gateway, access, documents, audit, and the Ray Serve deployment that runs the Sharer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_node.config import CloudConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

__all__ = ["CloudConfig", "leave", "run"]


def run(config: CloudConfig, ready: Callable[[str], None] | None = None) -> None:
    """Run a cloud node until SIGTERM or SIGINT, then drain and return.

    `ready` is called once, with the address listened on ("host:port"), when calls can be answered.
    """
    from cloud_node.node import run as run_node

    run_node(config, ready)


def leave(status: int) -> NoReturn:
    """End this process now, whatever `run` left hanging in it."""
    from cloud_node.node import leave as leave_node

    leave_node(status)
