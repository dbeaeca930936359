"""A cloud and an edge of tiny random models in this process: a real replica and gateway, mutual TLS, and no Ray."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from kvwire.errors import KvwireError
from kvwire.messages import ShareRequest
from kvwire.plan import Plan
from kvwire.segment import SliceKind
from ops.chaos.trials import DOCUMENTS, QUESTIONS, TENANTS, TOKENS, TinyPair, Trial, Truth

if TYPE_CHECKING:
    from cloud_node.call import Part, RelayCall, ShareCall
    from cloud_node.config import CloudConfig
    from cloud_node.replica import Replica
    from edge_node import EdgeConfig
    from fuser.bundle.bundle import Bundle
    from kvwire.messages import RelayReply

T = TypeVar("T")
_STOP_S: Final = 30.0


class LocalReplicas:
    """One replica of this process, with the interface of `RayReplicas`."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.timeouts_s: list[float] = []

    async def share(self, call: ShareCall, timeout_s: float) -> AsyncIterator[Part]:
        """As `RayReplicas.share`."""
        self.timeouts_s.append(timeout_s)
        async with contextlib.aclosing(self.replica.share(call, timeout_s)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                for part in batch:
                    if isinstance(part, KvwireError):
                        raise part
                    yield part

    async def relay(self, call: RelayCall, timeout_s: float) -> RelayReply:
        """As `RayReplicas.relay`."""
        reply = await self.replica.relay(call, timeout_s)
        if isinstance(reply, KvwireError):
            raise reply
        return reply


class TinyWorld:
    """All of it, until it is left: a context manager.

    Args:
        folder: for models, certificates, documents and the audit log.
        documents: URL of an empty database for the documents; None makes a file of SQLite.
    """

    def __init__(self, folder: Path, cast: TinyPair | None = None, documents: str | None = None) -> None:
        from cloud_node.documents import Documents
        from ops.certs import make_certificates

        self.cast = cast or TinyPair.make(folder / "models")
        self.truth = Truth(self.cast)
        self.certificates = make_certificates(folder / "tls", list(TENANTS))
        self.folder = folder
        self.config = self._config(documents or f"sqlite:///{folder / 'documents.db'}")
        self.versions = {name: texts[0] for name, texts in DOCUMENTS.items()}
        """Of each document, now."""
        self.fallbacks: tuple[str, ...] = ()
        """Further gateways that an edge is told of."""
        # Open all the time: to open it keeps Python busy, and each step of an edge in this process would wait for it.
        self._written = Documents(self.config.documents)
        self._put: dict[str, list[tuple[float, float, str]]] = {}
        for tenant in TENANTS:
            for name in DOCUMENTS:
                self.put(name, 0, tenant)
        self._cuts = 0
        self._cutting: dict[bool, tuple[Bundle, Replica]] = {}

    def __enter__(self) -> Self:
        """Start the cloud."""
        from cloud_node.replica import Replica

        self.replica = Replica.load(self.config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-cloud", daemon=True)
        self._thread.start()
        self.address = self.on_the_loop(self._start())
        return self

    def __exit__(self, *error: object) -> None:
        self.on_the_loop(self._gateway.drain())
        self._audit.close()
        self._store.close()
        self.replica._documents.close()
        self._written.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)
        self._loop.close()

    def put(self, document: str, version: int, tenant: str = TENANTS[0]) -> None:
        """Give a document another text."""
        text, began = DOCUMENTS[document][version], time.monotonic()
        if tenant == TENANTS[0]:
            self._put.setdefault(document, []).append((began, math.inf, text))
        self._written.add(tenant, document, text, replace=True)
        if tenant == TENANTS[0]:
            self._put[document][-1] = (began, time.monotonic(), text)
            self.versions[document] = text

    def live(self, document: str, since: float) -> tuple[str, ...]:
        """The texts that a document had at any moment since then, on the monotonic clock."""
        put = self._put[document]
        at = max(place for place, (_, ended, _) in enumerate(put) if ended <= since)
        return tuple(dict.fromkeys(text for _, _, text in put[at:]))

    def edge(self, address: str, deadline_s: float, tenant: str = TENANTS[0]) -> EdgeConfig:
        """The configuration of an edge that finds the cloud at `address`."""
        from edge_node.config import CloudPeer, EdgeConfig, ReceiverConfig, ShareConfig, TlsConfig

        pair = self.certificates.edges[tenant]
        return EdgeConfig(
            tls=TlsConfig(str(pair.certificate), str(pair.key), str(self.certificates.ca.certificate)),
            receiver=ReceiverConfig(str(self.cast.receiver), str(self.cast.bundle), max_new_tokens=TOKENS),
            cloud=CloudPeer(address=address, fallbacks=self.fallbacks),
            share=ShareConfig(codec="raw", max_positions=8, deadline_s=deadline_s),
        )

    async def cut(
        self, kind: SliceKind, plan: Plan, question: int, foreign: bool
    ) -> tuple[ShareRequest, Bundle, list[Part]]:
        """A request, of an id that is the same in each run, its bundle, and the replica's reply in small frames."""
        from cloud_node.admission import PositionsHeld
        from cloud_node.call import ShareCall
        from cloud_node.config import ExportPolicy
        from cloud_node.documents import Documents
        from cloud_node.replica import Replica
        from fuser import load_sharers
        from kvwire.codec import CodecRegistry
        from kvwire.limits import Limits

        if foreign not in self._cutting:
            bundles = [str(self.cast.foreign if foreign else self.cast.bundle)]
            (sharer,) = load_sharers(str(self.cast.sharer), bundles)
            self._cutting[foreign] = (
                sharer.bundle,
                Replica(
                    {sharer.bundle.hash: sharer},
                    sharer.bundle.config.sharer,
                    Documents(self.config.documents),
                    Limits(max_frame_bytes=256),
                    ExportPolicy(),
                    max_prompt_tokens=4_096,
                    room=PositionsHeld(4_096),
                    workers=1,
                    max_batch=1,
                    max_batch_positions=256,
                ),
            )
        bundle, replica = self._cutting[foreign]
        document = None if kind is SliceKind.SHARED else "keys"
        self._cuts += 1
        request = ShareRequest(
            request_id=hashlib.sha256(f"request {self._cuts}".encode()).digest()[:16],
            sharer=bundle.config.sharer,
            bundle_hash=bundle.hash,
            codec_hash=CodecRegistry(bundle.codecs()).get(plan.codec).parameters_hash,
            kind=kind,
            plan=plan,
            sections=Trial(QUESTIONS[question], document, kind, plan).sections(),
        )
        call = ShareCall(TENANTS[0], request, None, None)
        parts = [part async for part in LocalReplicas(replica).share(call, 60.0)]
        return request, bundle, parts

    def on_the_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """What comes of it on the cloud's own thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_STOP_S)

    async def _start(self) -> str:
        from cloud_node.access import Access
        from cloud_node.audit import AuditLog
        from cloud_node.documents import Documents
        from cloud_node.gateway import Gateway
        from cloud_node.service import SharerService, offered

        self._audit, self._store = AuditLog(self.config.audit), Documents(self.config.documents)
        description = offered(self.replica.describe(), self.config)
        service = SharerService(
            self.config, description, LocalReplicas(self.replica), Access(self._store), self._audit
        )
        self._gateway = Gateway(self.config, service, _always)
        return await self._gateway.start()

    def _config(self, documents: str) -> CloudConfig:
        from cloud_node.config import CloudConfig, CloudTls, GatewayConfig, SharerConfig

        cloud = self.certificates.cloud
        return CloudConfig(
            tls=CloudTls(str(cloud.certificate), str(cloud.key), str(self.certificates.ca.certificate)),
            sharer=SharerConfig(
                str(self.cast.sharer), (str(self.cast.bundle),), dtype="float32", retry_after_s=0.2
            ),
            listen="127.0.0.1:0",
            documents=documents,
            audit=str(self.folder / "audit.jsonl"),
            gateway=GatewayConfig(drain_s=2.0),
        )


async def _always() -> int:
    return 1
