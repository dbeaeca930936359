"""Traces: what each stage of a call took, sent over OTLP/HTTP to where `[telemetry] otlp` says.

A slice's request id is the id of its trace, so that traces and both nodes' logs find each other; W3C's `traceparent` in
the call's metadata says which span of the edge the cloud's is under. A span is made when its call has ended, from the
seconds that were measured anyway: nothing is on an answer's path. It says what a line of the log says, and no text.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import queue
import re
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

logger = logging.getLogger(__name__)

_PARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-01")
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_MOST_WAITING: Final = 4_096
_MOST_TOGETHER: Final = 512
_EVERY_S: Final = 1.0
_POST_S: Final = 5.0
SERVER: Final = 2
CLIENT: Final = 3
_INTERNAL: Final = 1
_ERROR: Final = 2


@dataclass(frozen=True, slots=True)
class Context:
    """Of which trace a span is, its own id, and that of the span above it; b"" where there is none."""

    trace: bytes
    span: bytes
    parent: bytes = b""

    @classmethod
    def of(cls, request_id: str) -> Context:
        """Of the edge's span of what it asked for under this id (hex); of a trace of its own where that is empty."""
        trace = bytes.fromhex(request_id) or os.urandom(16)
        return cls(trace, trace[:8])

    @classmethod
    def under(cls, traceparent: str, request_id: bytes) -> Context | None:
        """Of the cloud's span of a call; None where the caller has it in no trace and it has no id."""
        if (found := _PARENT.fullmatch(traceparent)) is not None:
            return cls(bytes.fromhex(found[1]), os.urandom(8), bytes.fromhex(found[2]))
        return cls(request_id, os.urandom(8)) if len(request_id) == 16 else None


def traceparent(request_id: str) -> str:
    """What the edge sends with a call of this id, in hex."""
    context = Context.of(request_id)
    return f"00-{context.trace.hex()}-{context.span.hex()}-01"


@dataclass(frozen=True, slots=True)
class TracedStage:
    """A part of a call: it began so many seconds after the call did, and took so many."""

    name: str
    begins_s: float
    took_s: float


@dataclass(frozen=True, slots=True)
class Traced:
    """A call that has just ended.

    kind: SERVER or CLIENT. error: the reason that it failed with, "" where it did not.
    """

    name: str
    kind: int
    context: Context
    took_s: float
    stages: Sequence[TracedStage] = ()
    error: str = ""
    said: Mapping[str, str | int] = field(default_factory=dict)
    ended_ns: int = field(default_factory=time.time_ns)


class Traces:
    """Sends what it is told from a thread of its own, from `start` to `close`; else it does nothing.

    Args:
        otlp: a collector's address ("http://127.0.0.1:4318"), or None.
        service: the name of this node there.

    Attributes:
        on: whether there is a collector to tell.
    """

    def __init__(self, otlp: str | None, service: str) -> None:
        self._url, self._service = f"{(otlp or '').rstrip('/')}/v1/traces", service
        self.on = otlp is not None
        self._calls: queue.Queue[Traced | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._failing = False

    def start(self) -> None:
        """Begin to send, where there is a collector."""
        if self.on:
            self._thread = threading.Thread(target=self._send_all, name="traces", daemon=True)
            self._thread.start()

    def tell(self, call: Traced) -> None:
        """Never waits: where the collector is too slow, calls are left out."""
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._calls.put_nowait(call)

    def close(self) -> None:
        """Send what waits, for some seconds at most."""
        if (thread := self._thread) is not None:
            self._thread = None
            with contextlib.suppress(queue.Full):
                self._calls.put(None, timeout=_POST_S)
            thread.join(_POST_S)

    def _send_all(self) -> None:
        ended = False
        while not ended:
            calls = [self._calls.get()]
            until = time.monotonic() + _EVERY_S
            while (
                calls[-1] is not None
                and len(calls) < _MOST_TOGETHER
                and (left := until - time.monotonic()) > 0
            ):
                try:
                    calls.append(self._calls.get(timeout=left))
                except queue.Empty:
                    break
            ended = calls[-1] is None
            if told := [call for call in calls if call is not None]:
                self._send(told)

    def _send(self, calls: Sequence[Traced]) -> None:
        headers = {"Content-Type": "application/x-protobuf"}
        sent = urllib.request.Request(self._url, _encoded(calls, self._service), headers)
        try:
            _DIRECT.open(sent, timeout=_POST_S).close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Whatever answers there, the thread goes on.
            if not self._failing:
                logger.warning("traces are not taken at telemetry.otlp: %s", type(error).__name__)
            self._failing = True
        else:
            self._failing = False


def _encoded(calls: Sequence[Traced], service: str) -> bytes:
    """An ExportTraceServiceRequest."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    _say(resource.resource, {"service.name": service})
    scope = resource.scope_spans.add()
    scope.scope.name = "kvwire"
    for call in calls:
        context, began_ns = call.context, call.ended_ns - int(call.took_s * 1e9)
        above = scope.spans.add(
            trace_id=context.trace,
            span_id=context.span,
            parent_span_id=context.parent,
            name=call.name,
            kind=call.kind,
            start_time_unix_nano=began_ns,
            end_time_unix_nano=call.ended_ns,
        )
        _say(above, call.said)
        if call.error:
            above.status.code = _ERROR
            _say(above, {"error.type": call.error})
        for stage in call.stages:
            begins_ns = began_ns + int(stage.begins_s * 1e9)
            scope.spans.add(
                trace_id=context.trace,
                span_id=os.urandom(8),
                parent_span_id=context.span,
                name=stage.name,
                kind=_INTERNAL,
                start_time_unix_nano=begins_ns,
                end_time_unix_nano=begins_ns + int(stage.took_s * 1e9),
            )
    return bytes(request.SerializeToString())


def _say(what: Any, said: Mapping[str, str | int]) -> None:
    for key, value in said.items():
        told = what.attributes.add(key=key).value
        if isinstance(value, str):
            told.string_value = value
        else:
            told.int_value = value
