"""The gateway: a grpc.aio server with mutual TLS, health and an orderly end, in front of the replicas."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography import x509
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthServicer, add_HealthServicer_to_server

from cloud_node.access import Gatekeeper
from cloud_node.admission import Places
from cloud_node.config import CloudConfig
from cloud_node.revoked import Revoked
from cloud_node.service import SharerService
from kvwire.identity import TlsFiles, server_credentials
from kvwire.limits import METADATA_OPTIONS, raise_descriptors
from kvwire.telemetry import telling
from kvwire.v1.sharer_pb2_grpc import add_SharerServiceServicer_to_server

logger = logging.getLogger(__name__)

SERVICE: Final = "kvwire.v1.SharerService"
_HEALTH_PERIOD_S: Final = 1.0
_LAST_WORDS_S: Final = 0.5
_HANDSHAKE_MS: Final = 5_000
_IDLE_MS: Final = 600_000
_AGE_MS: Final = 3_600_000
"""A connection is closed after it, once its calls are over: so an authority that is gone vouches for nobody then."""
_PROBES: Final = 256
_PROBES_EACH: Final = {"tenant": 8, "host": 32}
_WATCHES_EACH: Final = {"tenant": 4, "host": 16}


class Gateway:
    """Serves one `SharerService` until it is told to drain."""

    def __init__(
        self, config: CloudConfig, service: SharerService, running: Callable[[], Awaitable[int]]
    ) -> None:
        """`running` says how many replicas can take calls."""
        self._config = config
        self._service = service
        self._running = running
        self._health = Health(("", SERVICE))
        self._up, self._recording = config.sharer.replicas, True
        self._telling = contextlib.ExitStack()
        self.telemetry: str | None = None
        """Where numbers and health are told, once it has started: "host:port"."""
        self._credentials: grpc.ServerCredentials | None = None
        revoked = Revoked(config.tls.revoked)
        self._server = grpc.aio.server(
            interceptors=[Gatekeeper(config.limits, _places(config), service.refused, revoked)],
            options=_options(config),
        )
        add_SharerServiceServicer_to_server(service, self._server)  # type: ignore[no-untyped-call]
        add_HealthServicer_to_server(self._health, self._server)

    async def start(self) -> str:
        """Listen, and return the address listened on ("host:port"; port 0 takes a free one).

        Raises:
            OSError, ValueError: a PEM file is missing or is none, the key is not the certificate's, or the address of
                `[telemetry]` is taken.
            RuntimeError: the address is taken.
        """
        raise_descriptors()
        tls = self._config.tls
        files = TlsFiles(Path(tls.certificate), Path(tls.key), Path(tls.authority))
        self._credentials = server_credentials(files)  # kept: they are asked at each handshake
        host = self._config.listen.rpartition(":")[0]
        port = self._server.add_secure_port(self._config.listen, self._credentials)
        self._tell()
        await self._health.set(True)
        await self._server.start()
        return f"{host}:{port}"

    async def serve(self, ended: asyncio.Event, ready: Callable[[str], None] | None = None) -> None:
        """Start, call `ready` with the address, serve until `ended` is set, drain and stop.

        Raises:
            ReplicasLost: no replica will take a call again; what could end in order did.
            and what `start` raises.
        """
        address = await self.start()
        watches = [
            asyncio.create_task(self._watch_replicas()),
            asyncio.create_task(self._service.canary.watch(self._judge)),
        ]
        watch: asyncio.Future[Any] = asyncio.gather(*watches)
        told = asyncio.create_task(ended.wait())
        logger.info("listening on %s", address)
        if ready is not None:
            ready(address)
        await asyncio.wait({watch, told}, return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            logger.error("%s", watch.exception())
        for task in (*watches, told):
            task.cancel()
        await self.drain()
        with contextlib.suppress(asyncio.CancelledError):
            await watch

    async def drain(self) -> None:
        """Say NOT_SERVING, refuse new calls, let those in flight finish within the grace, and stop."""
        logger.info("draining")
        await self._health.end()
        finished = await self._service.drain(self._config.gateway.drain_s)
        if not finished:
            logger.warning("calls in flight were cut off after %.1f s", self._config.gateway.drain_s)
        await self._server.stop(_LAST_WORDS_S)
        await asyncio.to_thread(self._telling.close)  # a collector may hang
        logger.info("stopped")

    async def _watch_replicas(self) -> None:
        """Look at replicas and audit log, for ever; raises ReplicasLost when no replica ever will take calls."""
        while True:
            await asyncio.sleep(_HEALTH_PERIOD_S)
            self._up, self._recording = await self._running(), self._service.recording()
            self._service.replicas_up(self._up)
            await self._judge()

    async def _judge(self) -> None:
        """Tell the health service what is known now."""
        await self._health.set(not self._why())

    def _why(self) -> str:
        """What keeps this node from serving; "" where nothing does."""
        found = {
            "the audit log cannot be written": not self._recording,
            "no replica is up": not self._up,
            f"the node's own question is not answered: {self._service.canary.failure}": self._service.canary.failure,
            "draining": self._health.ended,
        }
        return next((why for why, holds in found.items() if holds), "")

    def _tell(self) -> None:
        """Open what `[telemetry]` asks for."""
        config, meter, traces = self._config, self._service.meter, self._service.traces
        traces.start()
        self._telling.callback(traces.close)
        if config.telemetry.listen is None:
            return
        meter.read("kvwire_cloud_serving", lambda: self._health.serving)
        meter.read("kvwire_cloud_replicas_up", lambda: self._up)
        meter.read("kvwire_cloud_audit_writable", lambda: self._recording)
        meter.read("kvwire_cloud_certificate_remaining_seconds", lambda: _left_s(config.tls.certificate))
        told = telling(config.telemetry, meter, self._healthz)
        self.telemetry = self._telling.enter_context(told)

    def _healthz(self) -> tuple[bool, dict[str, str]]:
        why = self._why()
        return self._health.serving, {"why": why} if why else {}


def _left_s(certificate: str) -> float | None:
    """Seconds until a certificate ends; None where it cannot be read just now."""
    try:
        own = x509.load_pem_x509_certificates(Path(certificate).read_bytes())[0]
    except (OSError, ValueError):
        return None
    return own.not_valid_after_utc.timestamp() - time.time()


def _places(config: CloudConfig) -> dict[str, Places]:
    gateway, retry_s = config.gateway, config.sharer.retry_after_s
    calls = {"tenant": gateway.max_calls_per_tenant, "host": gateway.max_calls_per_host}
    return {
        "calls": Places(gateway.max_concurrent_calls, calls, retry_s),
        "probes": Places(_PROBES, _PROBES_EACH, retry_s),
        "watches": Places(_PROBES, _WATCHES_EACH, retry_s),
    }


def _options(config: CloudConfig) -> list[tuple[str, Any]]:
    limits, gateway = config.limits, config.gateway
    return [
        # A request over max_request_bytes but below this is told so by name.
        ("grpc.max_receive_message_length", 4 * limits.max_request_bytes),
        ("grpc.max_send_message_length", limits.max_message_bytes),
        *METADATA_OPTIONS,
        ("grpc.max_concurrent_streams", 100),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
        ("grpc.max_connection_age_ms", _AGE_MS),
        ("grpc.keepalive_time_ms", int(gateway.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(gateway.keepalive_timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", int(gateway.min_ping_interval_s * 1000)),
        ("grpc.so_reuseport", 0),
    ]


_States = health_pb2.HealthCheckResponse


class Health(HealthServicer):  # type: ignore[misc]
    """grpc.health.v1 with one state for all services: serving or not. `end` makes it not serving for good.

    Not grpcio's own servicer: in 1.71, a watcher who leaves stops the updates of all others.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(services)
        self._serving = False
        self.ended = False
        self._changed = asyncio.Condition()

    @property
    def serving(self) -> bool:
        """The state now."""
        return self._serving

    async def set(self, serving: bool) -> None:
        """Tell everyone who asks or watches."""
        async with self._changed:
            self._serving = serving and not self.ended
            self._changed.notify_all()

    async def end(self) -> None:
        """Not serving from now on."""
        self.ended = True
        await self.set(False)

    async def Check(self, request: Any, context: Any) -> Any:
        """The state now; NOT_FOUND for a service that is not here."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return _States(status=self._state(request.service))

    async def Watch(self, request: Any, context: Any) -> None:
        """The state now and at every change, until the caller leaves."""
        told = None
        while True:
            async with self._changed:
                while self._state(request.service) == told:
                    await self._changed.wait()
                told = self._state(request.service)
            await context.write(_States(status=told))

    def _state(self, service: str) -> int:
        if service not in self._services:
            return int(_States.SERVICE_UNKNOWN)
        return int(_States.SERVING if self._serving else _States.NOT_SERVING)
