"""Watch: what the local API counts, and how its health is told, from answers as they end. The answer's path knows none
of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from edge_node.answer import (
    EMPTY,
    FUSED,
    NO_PLAN,
    NOTES,
    NOTHING_FOUND,
    NOTHING_TO_SHARE,
    RECEIVER_ONLY,
    RELAYED,
    REQUESTED,
    Answer,
)
from kvwire.codec import CodecRegistry
from kvwire.errors import CATALOGUE, Busy, Cancelled, KvwireError, WireError, entry_of
from kvwire.segment import SliceKind
from kvwire.telemetry import Lines, Meter, Metric, telling
from kvwire.traces import CLIENT, Context, Traced, TracedStage, Traces

if TYPE_CHECKING:
    from edge_node.assistant import Assistant

logger = logging.getLogger(__name__)

_GEN_AI: Final = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
EDGE: Final = (
    Metric(
        "kvwire_edge_asks_total",
        "counter",
        "Questions over the local API: how they were answered, and why so.",
        ("source", "reason"),
    ),
    Metric(
        "kvwire_edge_stage_seconds",
        "histogram",
        "Seconds of an answer's stages, as in its timings but for their total.",
        ("stage",),
    ),
    # These three as OpenTelemetry's conventions for generative AI have them: the edge is the model's server.
    Metric(
        "gen_ai_server_request_duration_seconds",
        "histogram",
        "Seconds of questions over the local API, from their arrival to the end of the answer, or to its error.",
        (*_GEN_AI, "error_type"),
    ),
    Metric(
        "gen_ai_server_time_to_first_token_seconds",
        "histogram",
        "Seconds from the question to the first piece of text.",
        _GEN_AI,
    ),
    Metric(
        "gen_ai_client_token_usage",
        "histogram",
        "Tokens that the Receiver read (input; a slice has none) and generated (output) for an answer.",
        (*_GEN_AI, "gen_ai_token_type"),
        (1, 4, 16, 64, 256, 1_024, 4_096, 16_384),
    ),
    Metric("kvwire_edge_sent_bytes_total", "counter", "Bytes of messages sent to the cloud."),
    Metric("kvwire_edge_received_bytes_total", "counter", "Bytes of messages received from the cloud."),
    Metric(
        "kvwire_edge_received_payload_bytes_total",
        "counter",
        "Bytes of segments among those received.",
        ("kind", "codec"),
    ),
    Metric(
        "kvwire_edge_abstentions_total",
        "counter",
        "Answers in which the Receiver said that it does not know.",
    ),
    Metric(
        "kvwire_edge_integrity_failures_total",
        "counter",
        "Slices that were not used because they arrived damaged or contradictory.",
        ("error",),
    ),
    Metric("kvwire_edge_connected", "gauge", "1 while there is a connection to the cloud."),
    Metric("kvwire_edge_circuit_open", "gauge", "1 while calls fail at once, until a probe finds the cloud."),
    Metric(
        "kvwire_edge_bandwidth_bytes_per_second", "gauge", "Of the link down, estimated; NaN where not known."
    ),
    Metric("kvwire_edge_round_trip_seconds", "gauge", "Of the link, estimated; NaN where not known."),
    Metric(
        "kvwire_edge_queue_length", "gauge", "Questions in the local API, the one being answered among them."
    ),
    Metric(
        "kvwire_edge_refused_callers_total",
        "counter",
        "HTTP requests refused at the door: host, origin or key; or full, as the queue was.",
        ("check",),
    ),
)

UNANSWERED: Final = "unanswered"
"""Source of a question that got an account and no text."""
FAILED: Final = "failed"
"""Source of a question that ended with an error, or whose caller went away."""
NONE: Final = "NONE"
"""Reason of a fused answer."""
_SOURCES: Final = (FUSED, RECEIVER_ONLY, RELAYED, UNANSWERED, FAILED)
_DAMAGED: Final = frozenset(
    entry.reason for error, entry in CATALOGUE.items() if issubclass(error, WireError)
) - {"TOO_LARGE", "UNSUPPORTED"}
_REASONS: Final = {
    *(entry.reason for entry in CATALOGUE.values()),
    *(REQUESTED, NOTHING_TO_SHARE, EMPTY, NOTES, NOTHING_FOUND, NO_PLAN, NONE),
}
_STAGES: Final = (
    *("search", "receiver_prefill", "connect", "wait", "decode", "fuse", "slice", "generate"),
    *("cloud_queue", "cloud_prefill", "cloud_encode"),
)
DOOR: Final = ("host", "origin", "key", "full")
"""Why a caller is refused before anything is asked."""


class Watch:
    """Counts what one assistant's local API does, where its configuration says that somebody may ask."""

    def __init__(self, assistant: Assistant) -> None:
        self._config, self._client = assistant.config.telemetry, assistant.client
        self._meter = meter = Meter(EDGE, _values(assistant)) if self._config.listen else Meter()
        self._lines, self._traces = Lines(logger), Traces(self._config.otlp, "kvwire-edge")
        self._model = {
            "gen_ai_operation_name": "chat",
            "gen_ai_provider_name": "kvwire",
            "gen_ai_request_model": assistant.bundle.config.receiver.name,
        }
        client = assistant.client
        meter.read("kvwire_edge_connected", lambda: client.connection == "connected")
        meter.read("kvwire_edge_circuit_open", lambda: client.connection == "away")
        link = client.link
        meter.read("kvwire_edge_bandwidth_bytes_per_second", lambda: link.estimate.bandwidth_bytes_per_s)
        meter.read("kvwire_edge_round_trip_seconds", lambda: link.estimate.rtt_s)

    def queued(self, length: Callable[[], int]) -> None:
        """How many questions are here, for whoever asks."""
        self._meter.read("kvwire_edge_queue_length", length)

    def refused(self, why: str) -> None:
        """A caller of whom nothing was read: one of `DOOR`."""
        self._meter.add("kvwire_edge_refused_callers_total", check=why)

    def ended(self, outcome: Answer | KvwireError | None, request_id: str = "", took_s: float = 0.0) -> None:
        """A question has ended, with None where its caller went away.

        Args:
            request_id: as the cloud's log has it.
            took_s: seconds since it came.
        """
        meter = self._meter
        if self._traces.on:
            self._traces.tell(_traced(outcome, request_id, took_s, self._model))
        if isinstance(outcome, Busy):
            self.refused("full")
        if not isinstance(outcome, Answer):
            reason = entry_of(Cancelled if outcome is None else type(outcome)).reason
            meter.add("kvwire_edge_asks_total", source=FAILED, reason=reason)
            self._took(took_s, reason)
            self._lines.tell("ask", request_id=request_id, source=FAILED, reason=reason)
            return
        source, reason = outcome.source if outcome.answered else UNANSWERED, outcome.reason or NONE
        meter.add("kvwire_edge_asks_total", source=source, reason=reason)
        self._lines.tell(
            "ask",
            request_id=request_id,
            source=source,
            reason=reason,
            kind=outcome.kind or "",
            positions=outcome.positions,
            bytes=outcome.bytes_received,
            seconds=outcome.timings.get("total", 0.0),
        )
        if reason in _DAMAGED:
            meter.add("kvwire_edge_integrity_failures_total", error=reason)
        if outcome.abstained:
            meter.add("kvwire_edge_abstentions_total")
        self._took(took_s)
        for stage, seconds in outcome.timings.items():
            if stage in _STAGES:
                meter.observe("kvwire_edge_stage_seconds", seconds, stage=stage)
        if outcome.answered:
            first_s = outcome.time_to_first_token_s
            meter.observe("gen_ai_server_time_to_first_token_seconds", first_s, **self._model)
        for side, tokens in (("input", outcome.prompt_tokens), ("output", outcome.tokens)):
            meter.observe("gen_ai_client_token_usage", tokens, **self._model, gen_ai_token_type=side)
        meter.add("kvwire_edge_sent_bytes_total", outcome.bytes_sent)
        meter.add("kvwire_edge_received_bytes_total", outcome.bytes_received)
        if outcome.payload_bytes:
            kind, codec = outcome.kind or "", outcome.codec or ""
            meter.add(
                "kvwire_edge_received_payload_bytes_total", outcome.payload_bytes, kind=kind, codec=codec
            )

    def _took(self, seconds: float, error: str = "") -> None:
        self._meter.observe(
            "gen_ai_server_request_duration_seconds", seconds, **self._model, error_type=error
        )

    @contextlib.contextmanager
    def telling(self) -> Iterator[str | None]:
        """Serve numbers and health while the context lasts: the API is up, whatever the cloud is."""

        def health() -> tuple[bool, dict[str, str]]:
            return True, {"cloud": self._client.last_call, "connection": self._client.connection}

        self._traces.start()
        try:
            with telling(self._config, self._meter, health) as address:
                yield address
        finally:
            self._traces.close()


def _traced(
    outcome: Answer | KvwireError | None, request_id: str, took_s: float, model: Mapping[str, str]
) -> Traced:
    """The spans of a question. What was fused while it came is told as one span, at the end of the transfer."""
    context = Context.of(request_id)
    said: dict[str, str | int] = {
        name.replace("_", ".").replace("gen.ai", "gen_ai"): value for name, value in model.items()
    }
    if not isinstance(outcome, Answer):
        reason = entry_of(Cancelled if outcome is None else type(outcome)).reason
        return Traced("ask", CLIENT, context, took_s, error=reason, said=said)
    spent, source = outcome.timings, outcome.source if outcome.answered else UNANSWERED
    queued_s, sliced_s = max(took_s - spent.get("total", 0.0), 0.0), spent.get("slice", 0.0)
    begins_s = {
        "connect": queued_s + spent.get("search", 0.0),
        "transfer": queued_s + spent.get("search", 0.0),
        "fuse": queued_s + sliced_s - spent.get("fuse", 0.0),
        "generate": took_s - spent.get("generate", 0.0),
    }
    spent = spent | {"transfer": max(sliced_s - spent.get("search", 0.0), 0.0)}
    stages = [TracedStage("queue", 0.0, queued_s)]
    stages += [TracedStage(name, at, spent[name]) for name, at in begins_s.items() if spent.get(name)]
    said |= {"gen_ai.usage.input_tokens": outcome.prompt_tokens, "gen_ai.usage.output_tokens": outcome.tokens}
    said |= {"kvwire.source": source, "kvwire.reason": outcome.reason or NONE}
    said |= {"kvwire.kind": outcome.kind or "", "kvwire.positions": outcome.positions}
    said |= {"kvwire.bytes": outcome.bytes_received}
    return Traced("ask", CLIENT, context, took_s, stages, said=said)


def _values(assistant: Assistant) -> dict[str, tuple[str, ...]]:
    """What each label may say."""
    return {
        "source": _SOURCES,
        "reason": tuple(_REASONS),
        "error": tuple(_DAMAGED),
        "check": DOOR,
        "stage": _STAGES,
        "gen_ai_operation_name": ("chat",),
        "gen_ai_provider_name": ("kvwire",),
        "gen_ai_request_model": (assistant.bundle.config.receiver.name,),
        "gen_ai_token_type": ("input", "output"),
        "error_type": ("", *_REASONS),
        "kind": tuple(SliceKind),
        "codec": CodecRegistry(assistant.bundle.codecs()).names(),
    }
