"""What a node tells those who run it: numbers for Prometheus, its health, and lines of a log.

Nothing here holds a text, an id that a user chose, or a tensor: a label says only what its list of values has, and a
line of a log has the fields that it is given by name. Numbers and health are served by a thread of their own over plain
HTTP: a scrape waits for no call, and no call for a scrape.

`cloud_node.call.CLOUD` and `edge_node.metrics.EDGE` are all the metrics there are; docs/operations.md says what each is
for.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import json
import logging
import math
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, Literal

logger = logging.getLogger(__name__)

_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):(\d{1,5})")


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    """What a node tells of itself.

    listen: "host:port" where /metrics and /healthz are served over plain HTTP, without keys; None listens nowhere.
        Loopback is for this machine alone; another address is for a network that only those who run the node reach.
    logs: "text" lines for people, or "json" objects, one a line.
    otlp: a collector's "http://host:4318", to which traces of calls are sent (`kvwire.traces`); None sends none.
    """

    listen: str | None = None
    logs: Literal["text", "json"] = "text"
    otlp: str | None = None

    def __post_init__(self) -> None:
        if self.otlp is not None and not self.otlp.startswith(("http://", "https://")):
            raise ValueError(f"otlp is an http or https address, not {self.otlp!r}")
        if self.otlp is not None and not _has_otlp():
            raise ValueError("otlp needs OpenTelemetry's messages: pip install 'kvwire[otlp]'")
        if self.listen is not None:
            _address(self.listen)


def _has_otlp() -> bool:
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec("opentelemetry.proto") is not None
    return False


def _address(listen: str) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(listen)
    if found is None or int(found[2]) > 65_535:
        raise ValueError(f"listen is an address of the form host:port, not {listen!r}")
    return found[1].strip("[]"), int(found[2])


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name on the page, what it is, the names of its labels, and the buckets of a histogram."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = (
        *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
    )


OTHER: Final = "other"


class Meter:
    """Keeps a node's numbers; from any thread. Without metrics it keeps none, and needs no library.

    Args:
        metrics: of the node, or none.
        values: what each label may say; anything else is counted as "other".
    """

    def __init__(
        self, metrics: Sequence[Metric] = (), values: Mapping[str, Collection[str]] | None = None
    ) -> None:
        self._values = {name: frozenset(allowed) | {OTHER} for name, allowed in (values or {}).items()}
        self._kept: dict[str, Any] = {}
        if not metrics:
            return
        import prometheus_client as prometheus

        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self._registry)
        for metric in metrics:
            made: Any = {"counter": prometheus.Counter, "gauge": prometheus.Gauge}.get(metric.kind)
            named = (metric.name, metric.help, metric.labels)
            if made is None:
                kept: Any = prometheus.Histogram(*named, registry=self._registry, buckets=metric.buckets)
            else:
                kept = made(*named, registry=self._registry)
            self._kept[metric.name] = kept
            if len(metric.labels) == 1:  # from the start, so that a rate sees the first one
                for value in sorted(self._values[metric.labels[0]] - {OTHER}):
                    kept.labels(value)

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """To a counter."""
        if self._kept:
            self._of(name, labels).inc(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """In a histogram."""
        if self._kept:
            self._of(name, labels).observe(value)

    def read(self, name: str, now: Callable[[], float | None]) -> None:
        """Ask `now` for a gauge at each scrape, on the thread of that; it must not wait."""
        if self._kept:
            self._kept[name].set_function(lambda: math.nan if (value := now()) is None else value)

    def page(self) -> bytes:
        """All of it, in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

    def _of(self, name: str, labels: Mapping[str, str]) -> Any:
        kept = self._kept[name]
        if not labels:
            return kept
        return kept.labels(**{n: v if v in self._values[n] else OTHER for n, v in labels.items()})


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, event, and the fields that were given by name.

    Of an exception only its type is kept and where it was raised: its message may quote a text.
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        told = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": getattr(record, "event", None) or record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            told["exception"] = record.exc_info[0].__name__
            where = record.exc_info[2]
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            if where is not None:
                told["at"] = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}"
        return json.dumps(told, ensure_ascii=False)


def write_logs(config: TelemetryConfig) -> None:
    """Have the handlers of this process write as configured."""
    if config.logs == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonLines())


class Lines:
    """Writes one line for each event, and no more than so many a second, so that no caller fills a disk.

    Args:
        to: the logger; lines are of level INFO.
    """

    def __init__(self, to: logging.Logger, most_per_s: int = 100) -> None:
        self._to, self._most = to, most_per_s
        self._second, self._written, self._left_out = 0, 0, 0

    def tell(self, event: str, **fields: str | float) -> None:
        """One line of the fields that are not empty; `left_out` in it says how many lines were not written before."""
        if (now := int(time.monotonic())) != self._second:
            self._second, self._written = now, 0
        if self._written >= self._most:
            self._left_out += 1
            return
        if self._left_out:
            fields["left_out"] = self._left_out
        self._written, self._left_out = self._written + 1, 0
        told = {n: round(v, 4) if isinstance(v, float) else v for n, v in fields.items() if v != ""}
        words = " ".join(f"{name}={value}" for name, value in told.items())
        self._to.info("%s %s", event, words, extra={"event": event, "fields": told})


Health = Callable[[], tuple[bool, Mapping[str, str]]]
"""Whether the node does its work, and what else /healthz says."""
_CALLERS: Final = 16
_CALLER_S: Final = 5.0


@contextlib.contextmanager
def telling(config: TelemetryConfig, meter: Meter, health: Health) -> Iterator[str | None]:
    """Serve /metrics and /healthz, which is 503 where not healthy, while the context lasts; gives "host:port".

    Raises:
        OSError: the address is taken or not ours.
    """
    if config.listen is None:
        yield None
        return
    host, port = _address(config.listen)
    try:
        server = _TelemetryServer(host, port, meter, health)
    except OSError as error:
        raise OSError(error.errno, f"telemetry.listen {config.listen}: {error.strerror}") from None
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="telemetry", daemon=True)
    thread.start()
    address = f"{config.listen.rpartition(':')[0]}:{server.server_address[1]}"
    logger.info("metrics and health at http://%s", address)
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _TelemetryServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, host: str, port: int, meter: Meter, health: Health) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.meter, self.health = meter, health
        self._room = threading.BoundedSemaphore(_CALLERS)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller who went away; nothing to tell."""


class _Handler(BaseHTTPRequestHandler):
    server: _TelemetryServer
    timeout = _CALLER_S

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._reply(200, "text/plain; version=0.0.4; charset=utf-8", self.server.meter.page())
        elif path == "/healthz":
            good, more = self.server.health()
            told = json.dumps({"status": "SERVING" if good else "NOT_SERVING", **more})
            self._reply(200 if good else 503, "application/json", told.encode())
        else:
            self._reply(404, "text/plain", b"there are /metrics and /healthz\n")

    def _reply(self, status: int, media: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "kvwire"

    def log_message(self, format: str, *args: Any) -> None:
        """Not into the log: probes and scrapes come every few seconds."""
