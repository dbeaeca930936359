"""One cloud node from start to end: models on disk, replicas, gateway, drain."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from cloud_node.access import Access
from cloud_node.audit import AuditLog
from cloud_node.config import CloudConfig
from cloud_node.document_reader import DocumentReader
from cloud_node.gateway import Gateway
from cloud_node.service import SharerService, offered
from kvwire.errors import IncompatiblePeer
from kvwire.identity import ModelRef
from kvwire.telemetry import write_logs

if TYPE_CHECKING:
    from cloud_node.ray_replicas import RayReplicas
    from kvwire.messages import Description

T = TypeVar("T")


def run(config: CloudConfig, ready: Callable[[str], None] | None = None) -> None:
    """Run a cloud node until SIGTERM or SIGINT, then drain and return.

    Where Ray or the database hung, threads of theirs are left, which may keep the process from ending: see `leave`.
    `ready` is called once, with the address listened on ("host:port"), when calls can be answered.
    Raises:
        IncompatiblePeer: a bundle was trained for another Sharer, or another revision of it.
        AuditInUse: another node writes to this audit log.
        ReplicasLost: Ray is dead; the node has ended in order.
        and what `fuser.models`, `DocumentReader`, `AuditLog`, `RayReplicas.start` and `Gateway.start` raise.
    """
    write_logs(config.telemetry)
    rotation = config.audit_rotate_bytes, config.audit_rotate_daily
    audit = AuditLog(config.audit, config.audit_key, *rotation)
    documents = DocumentReader(config.documents)
    try:
        if config.ray.address == "local":
            _check_pair(config)
        asyncio.run(_run(config, documents, audit, ready))
    finally:
        documents.close()
        audit.close()


def leave(status: int) -> NoReturn:
    """End this process now, whatever hangs in it: Ray's own exit handler, for one, waits for a Ray that hangs."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody may read it any more
            stream.flush()
    os._exit(status)


def _check_pair(config: CloudConfig) -> None:
    """Say early if a bundle is not for the model."""
    from fuser import find_model, model_ref

    sharer = model_ref(find_model(config.sharer.model))
    for directory in config.sharer.bundles:
        written = json.loads((Path(directory) / "config.json").read_text(encoding="utf-8"))
        if ModelRef(**written["sharer"]) != sharer:
            raise IncompatiblePeer(f"Sharer of bundle {directory}", sharer, ModelRef(**written["sharer"]))


async def _run(
    config: CloudConfig, documents: DocumentReader, audit: AuditLog, ready: Callable[[str], None] | None
) -> None:
    from cloud_node.ray_replicas import RayReplicas

    ended = asyncio.Event()
    _listen(ended)
    replicas = RayReplicas(config)
    try:
        description = await _unless(ended, _described(replicas))
        if description is not None:
            _listen(ended)  # over Ray's handler, which writes a stack
            service = SharerService(config, offered(description, config), replicas, Access(documents), audit)
            await Gateway(config, service, replicas.running).serve(ended, ready)
    finally:
        await replicas.stop()


def _listen(ended: asyncio.Event) -> None:
    """Set `ended` at SIGTERM and SIGINT."""

    def end() -> None:
        # Ray's own handler of SIGTERM, where it came before ours, sets one that aborts the process.
        signal.alarm(0)
        ended.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, end)


async def _described(replicas: RayReplicas) -> Description:
    await replicas.start()
    return await replicas.describe()


async def _unless(ended: asyncio.Event, work: Awaitable[T]) -> T | None:
    """What comes of the work; None, and the work is cancelled, when `ended` is set before."""
    working, told = asyncio.ensure_future(work), asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        told.cancel()
