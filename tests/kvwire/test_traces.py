"""Traces as a collector gets them, and what happens where there is none."""

import socket
import sys
import time

import pytest

from kvwire import traces
from kvwire.telemetry import TelemetryConfig
from kvwire.traces import CLIENT, SERVER, Context, Traced, TracedStage, Traces, traceparent
from tests.collector import collecting

REQUEST = bytes(range(16))


def test_a_call_is_a_span_with_one_for_each_stage_and_the_clouds_is_under_the_edges() -> None:
    above = Context.of(REQUEST.hex())
    below = Context.under(traceparent(REQUEST.hex()), REQUEST)
    assert below is not None
    with collecting() as collector:
        edge, cloud = Traces(collector.url, "edge"), Traces(f"{collector.url}/", "cloud")
        for node in (edge, cloud):
            node.start()
        edge.tell(
            Traced(
                "ask", CLIENT, above, 2.0, [TracedStage("queue", 0.0, 0.5), TracedStage("generate", 1.5, 0.5)]
            )
        )
        cloud.tell(Traced("Share", SERVER, below, 1.0, error="BUSY", said={"kvwire.positions": 8}))
        for node in (edge, cloud):
            node.close()
        spans = {(service, span.name): span for service, span in collector.spans}
    ask, share = spans["edge", "ask"], spans["cloud", "Share"]
    assert {span.trace_id for span in spans.values()} == {REQUEST}
    assert share.parent_span_id == ask.span_id != share.span_id and not ask.parent_span_id
    assert share.status.code == 2
    assert {one.key: one.value.string_value or one.value.int_value for one in share.attributes} == {
        "error.type": "BUSY",
        "kvwire.positions": 8,
    }
    queue, generate = spans["edge", "queue"], spans["edge", "generate"]
    assert queue.parent_span_id == generate.parent_span_id == ask.span_id
    assert queue.start_time_unix_nano == ask.start_time_unix_nano
    assert queue.end_time_unix_nano - queue.start_time_unix_nano == 500_000_000
    assert generate.end_time_unix_nano == ask.end_time_unix_nano


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "00-zz-1-01",
        f"00-{REQUEST.hex()}-{REQUEST[:8].hex()}-00",
        f"00-{'0' * 32}-{'1' * 16}-01",
        "x" * 9_000,
    ],
)
def test_a_caller_without_a_trace_of_its_own_is_traced_by_its_id_alone(sent: str) -> None:
    context = Context.under(sent, REQUEST)
    assert context is not None and (context.trace, context.parent) == (REQUEST, b"")
    assert Context.under(sent, b"") is None


def test_a_collector_that_is_away_or_silent_costs_no_call_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "_POST_S", 0.5)
    with collecting() as collector:
        away = Traces(collector.url, "edge")
    away.start()
    began = time.monotonic()
    for _ in range(5_000):
        away.tell(Traced("ask", CLIENT, Context.of(""), 1.0))
    assert time.monotonic() - began < 2.0
    away.close()
    assert time.monotonic() - began < 6.0


def test_what_speaks_no_http_at_the_collectors_address_ends_no_trace() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        node = Traces(f"http://127.0.0.1:{server.getsockname()[1]}", "edge")
        node.start()
        for _ in range(2):  # the second is sent as the first was
            node.tell(Traced("ask", CLIENT, Context.of(REQUEST.hex()), 1.0))
            server.settimeout(20)
            peer, _ = server.accept()
            peer.recv(1)
            peer.sendall(b"no HTTP at all\r\n\r\n")
            peer.close()
        node.close()


def test_nothing_is_sent_that_nobody_asked_for() -> None:
    node = Traces(None, "edge")
    node.start()
    node.tell(Traced("ask", CLIENT, Context.of(""), 1.0))
    node.close()


def test_a_missing_package_and_a_wrong_address_are_named_when_the_configuration_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="otlp is an http"):
        TelemetryConfig(otlp="127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.proto", None)
    with pytest.raises(ValueError, match=r"pip install 'kvwire\[otlp\]'"):
        TelemetryConfig(otlp="http://127.0.0.1:4318")
