"""One call: what gateway and replica say to each other (plain values, never a tensor), and what is told of it: lines of
the audit log, metrics, spans."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Final

from cloud_node.access import POLICIES
from cloud_node.audit import SENDING, SERVED, AuditLog, AuditRecord
from cloud_node.config import CloudConfig
from cloud_node.document_reader import DocumentInfo
from fuser import PrefixFrom
from kvwire.errors import CATALOGUE, KvwireError, entry_of
from kvwire.messages import Description, RelayRequest, ShareRequest
from kvwire.segment import SliceHeader, SliceKind, SliceTrailer
from kvwire.slice_io import Frame
from kvwire.telemetry import Meter, Metric
from kvwire.traces import SERVER, Context, Traced, TracedStage

Part = SliceHeader | Frame | SliceTrailer


@dataclass(frozen=True, slots=True, repr=False)
class ShareCall:
    """A Share request that the gateway let through.

    tenant: who asks, from the verified certificate.
    request: as sent. It names documents by id; only the replica reads their text.
    allowed: positions of the slice that the export policy allows; None where it sets no bound.
    left: positions of its documents that may leave today for who asks; None where there is no bound.
    """

    tenant: str
    request: ShareRequest
    allowed: int | None
    left: int | None = None


@dataclass(frozen=True, slots=True)
class Quoting(SliceHeader):
    """A header as a replica hands it to its gateway, with what is never sent: where in the documents it quotes.

    quoted: of each position that was chosen in a document: its id, and characters [begins, ends) of the whole of it.
    """

    quoted: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Ended(SliceTrailer):
    """A trailer as a replica hands it to its gateway, with what is never sent: where its documents' K and V came from.

    prefix: a `fuser.PrefixFrom`, "" where there was no document.
    """

    prefix: str = ""

    @classmethod
    def of(cls, trailer: SliceTrailer, prefix: str) -> Ended:
        """This trailer with where they came from."""
        return cls(**{one.name: getattr(trailer, one.name) for one in fields(trailer)}, prefix=prefix)


@dataclass(frozen=True, slots=True, repr=False)
class RelayCall:
    """A Relay request that the gateway let through.

    allowed: tokens of text that the export policy allows; None where it sets no bound.
    """

    tenant: str
    request: RelayRequest
    allowed: int | None


STATUSES = {entry.reason: entry.status for entry in CATALOGUE.values()}
"""gRPC statuses, by the reason of an error."""
RELAYED = "relay"
"""Of metrics: the kind and the codec of a relayed text."""


ONE_BY_ONE: Final = 3
MOST_NAMED: Final = 4


@dataclass
class CallRecord:
    """What is known so far of one call."""

    method: str
    tenant: str = ""
    identity: str = ""
    user: str = ""
    request_id: bytes = b""
    documents: tuple[str, ...] = ()
    quoted: tuple[tuple[int, int, int], ...] = ()
    kind: str = ""
    codec: str = ""
    positions: int = 0
    segments: int = 0
    bytes: int = 0
    decision: str = SERVED
    left: bool = False
    """Whether a slice or a text may have left: its line is written."""
    started: float = field(default_factory=time.monotonic)
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds that the stages of a slice took."""
    prefix: str = ""
    """Where K and V of its documents came from."""
    _announced: int = 0
    _raw_bytes: int = 0
    _whole: bool = False

    def as_told(self, timings: dict[str, float]) -> dict[str, float]:
        """A replica's seconds as the edge is told them: to it a wait is one, wherever in the cloud."""
        return timings | {"queue": self.stages["turn"] + timings["queue"]}

    def announced(self, header: SliceHeader) -> None:
        """The slice that will leave."""
        if isinstance(header, Quoting):
            self.quoted = tuple((self.documents.index(d), begins, ends) for d, begins, ends in header.quoted)
        self.positions, self._announced = header.positions, len(header.specs)
        self._raw_bytes = header.raw_bytes

    def leaving(self, documents: Iterable[DocumentInfo]) -> AuditRecord:
        """The line to write before anything leaves. `documents`: that it leaves of, some perhaps twice."""
        self.left = True
        of = tuple(dict.fromkeys(documents))
        return replace(
            self.line(),
            decision=SENDING,
            versions=tuple(document.version for document in of),
            text_hashes=tuple(document.text_hash for document in of),
            quoted=self.quoted,
        )

    def sent(self, part: Part) -> None:
        """Count a part that is handed to the transport; how much of it a caller takes is not known here."""
        if isinstance(part, Frame):
            self.bytes += len(part.data)
        elif isinstance(part, SliceTrailer):
            self.segments, self._whole = self._announced, True
            self.stages |= part.timings
            self.prefix = part.prefix if isinstance(part, Ended) else ""

    def failed(self, error: KvwireError) -> None:
        """The call ends with this error."""
        self.decision = entry_of(type(error)).reason

    def line(self) -> AuditRecord:
        """The line of the audit log, as far as the call has come."""
        return AuditRecord(
            method=self.method,
            tenant=self.tenant,
            identity=self.identity,
            user=self.user,
            request_id=self.request_id.hex(),
            documents=self.documents,
            kind=self.kind,
            positions=self.positions,
            segments=self.segments,
            bytes=self.bytes,
            decision=self.decision,
            seconds=time.monotonic() - self.started,
        )

    def told(self) -> dict[str, str | float]:
        """Fields of its line in the log: what of the audit line names no tenant and no document."""
        line = self.line()
        names = ("request_id", "method", "kind", "positions", "bytes", "seconds")
        return {"reason": line.decision} | {name: getattr(line, name) for name in names}

    def traced(self, traceparent: str) -> Traced | None:
        """Its spans, once it has ended: the stages come one after the other; None where it is of no trace."""
        context = Context.under(traceparent, self.request_id)
        if context is None:
            return None
        stages, begins_s = [], 0.0
        for stage, took_s in self.stages.items():
            # A draft is read and written in one: its seconds are not told apart.
            name = "draft" if stage == "prefill" and self.kind == SliceKind.DRAFT else stage
            stages.append(TracedStage(name, begins_s, took_s))
            begins_s += took_s
        method = f"kvwire.v1.SharerService/{self.method}"
        said: dict[str, str | int] = {
            "rpc.method": method,
            "rpc.response.status_code": STATUSES.get(self.decision, "OK"),
            "kvwire.kind": self.kind or RELAYED,
            "kvwire.positions": self.positions,
            "kvwire.bytes": self.bytes,
        }
        error = self.decision if self.decision in STATUSES else ""
        return Traced(method, SERVER, context, time.monotonic() - self.started, stages, error, said)

    def measured(self, meter: Meter) -> None:
        """Count the call, once it has ended."""
        status = STATUSES.get(self.decision, "OK")
        meter.observe(
            "rpc_server_call_duration_seconds",
            time.monotonic() - self.started,
            rpc_method=f"kvwire.v1.SharerService/{self.method}",
            rpc_response_status_code=status,
        )
        if self.decision in STATUSES:
            meter.add("kvwire_cloud_refusals_total", reason=self.decision)
        for stage, seconds in self.stages.items():
            meter.observe("kvwire_cloud_stage_seconds", seconds, stage=stage)
        if self.prefix:
            meter.add("kvwire_cloud_prefixes_total", source=self.prefix)
        if self.left and self.bytes:
            sent = {"kind": self.kind or RELAYED, "codec": self.codec or RELAYED}
            meter.add("kvwire_cloud_sent_positions_total", self.positions, kind=sent["kind"])
            meter.add("kvwire_cloud_sent_payload_bytes_total", self.bytes, **sent)
            if self._whole:
                meter.add("kvwire_cloud_sent_raw_bytes_total", self._raw_bytes, **sent)


class SummedRecords:
    """Records of calls of which nothing left, so that many of them do not fill the disk.

    Of each method, tenant and decision the first `ONE_BY_ONE` of a second have a line each, which names the first
    `MOST_NAMED` documents; the others have one together.
    """

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._seconds: dict[tuple[str, str, str], tuple[float, int]] = {}  # when it began, calls so far

    def tell(self, record: AuditRecord) -> None:
        """Write a record, or count it."""
        self.flush()
        key = (record.method, record.tenant, record.decision)
        began, calls = self._seconds.get(key, (time.monotonic(), 0))
        self._seconds[key] = began, calls + 1
        if calls < ONE_BY_ONE:
            self._audit.offer(replace(record, documents=record.documents[:MOST_NAMED]))

    def flush(self) -> None:
        """Write what was counted in seconds that are over."""
        now = time.monotonic()
        over = [(key, calls) for key, (began, calls) in self._seconds.items() if now - began >= 1.0]
        for (method, tenant, decision), calls in over:
            del self._seconds[method, tenant, decision]
            if calls > ONE_BY_ONE:
                more = calls - ONE_BY_ONE
                self._audit.offer(AuditRecord(method=method, tenant=tenant, decision=decision, calls=more))


CLOUD: Final = (
    Metric(
        "rpc_server_call_duration_seconds",  # as OpenTelemetry's conventions for RPC have it
        "histogram",
        "Calls past the gateway's door: method, gRPC status and seconds.",
        ("rpc_method", "rpc_response_status_code"),
    ),
    Metric("kvwire_cloud_calls_in_flight", "gauge", "Calls that are being answered."),
    Metric(
        "kvwire_cloud_stage_seconds",
        "histogram",
        "Seconds of a slice's stages: turn (waiting for a replica), queue (for the model there), prefill, encode.",
        ("stage",),
    ),
    Metric(
        "kvwire_cloud_prefixes_total",
        "counter",
        "Slices of documents, by where K and V of these came from: memory, disk, or the model, which read them then.",
        ("source",),
    ),
    Metric("kvwire_cloud_sent_positions_total", "counter", "Positions of slices sent.", ("kind",)),
    Metric(
        "kvwire_cloud_sent_payload_bytes_total",
        "counter",
        "Bytes of segments, and of relayed texts, sent.",
        ("kind", "codec"),
    ),
    Metric(
        "kvwire_cloud_sent_raw_bytes_total",
        "counter",
        "Bytes that the segments of whole slices have before their codec; by the payload: the codec's ratio.",
        ("kind", "codec"),
    ),
    Metric(
        "kvwire_cloud_refusals_total",
        "counter",
        "Calls that ended with an error, by its reason.",
        ("reason",),
    ),
    Metric("kvwire_cloud_serving", "gauge", "1 while grpc.health.v1 says SERVING."),
    Metric(
        "kvwire_cloud_audit_writable",
        "gauge",
        "1 while the audit log can be written; else no call is answered.",
    ),
    Metric(
        "kvwire_cloud_canary_failures_total",
        "counter",
        "Questions of the node's own that were not answered, by the reason: health says NOT_SERVING then.",
        ("reason",),
    ),
    Metric("kvwire_cloud_replicas_up", "gauge", "Replicas that can take calls, as Ray Serve tells."),
    Metric(
        "kvwire_cloud_certificate_remaining_seconds",
        "gauge",
        "Until the end of the own certificate.",
    ),
)


def meter_of(config: CloudConfig, description: Description) -> Meter:
    """Of the service's calls; where nobody can ask for the numbers none are kept."""
    codecs = {codec.name for codec in description.codecs}
    codecs |= {codec.name for bundle in description.bundles for codec in bundle.codecs}
    values = {
        "rpc_method": [method.removeprefix("/") for method in POLICIES],
        "rpc_response_status_code": {"OK", *STATUSES.values()},
        "reason": STATUSES,
        "stage": ("turn", "queue", "prefill", "encode"),
        "source": tuple(PrefixFrom),
        "kind": (*SliceKind, RELAYED),
        "codec": {*codecs, RELAYED},
    }
    return Meter(CLOUD if config.telemetry.listen else (), values)
