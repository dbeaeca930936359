"""A collector of traces: a real HTTP server that takes OTLP's messages and reads them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Collector:
    """url: for `[telemetry] otlp`. bodies: as they came. spans: those of all messages, each with its service."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[bytes] = []

    @property
    def spans(self) -> list[tuple[str, Any]]:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        found = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                (service,) = (one.value.string_value for one in resource.resource.attributes)
                found += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        return found

    def wait_for(self, service: str, name: str, within_s: float = 10.0) -> list[Any]:
        """The spans of this name, once there are any."""
        end = time.monotonic() + within_s
        while not (found := [span for of, span in self.spans if (of, span.name) == (service, name)]):
            assert time.monotonic() < end, f"no span {name} of {service}"
            time.sleep(0.02)
        return found


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            good = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            if good:
                collector.bodies.append(body)
            self.send_response(200 if good else 404)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
