"""Both nodes are asked for their numbers while they answer over real gRPC, and what they tell holds nothing private."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import re
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_node.call import CLOUD
from edge_node import Assistant, Client
from edge_node.metrics import EDGE
from fuser.bundle.bundle import Bundle
from fuser.models.load import load_model
from fuser.receiver import Receiver
from kvwire.telemetry import JsonLines, TelemetryConfig
from ops.certs import Certificates
from tests.cloud_fixture import DOCUMENTS
from tests.cloud_node.conftest import LocalCloud, Start
from tests.collector import Collector, collecting
from tests.edge_node.local_api import serving_api
from tests.edge_node.toml import edge_of

ROOT = Path(__file__).parents[2]
LISTEN = TelemetryConfig("127.0.0.1:0")
QUESTION = "Who keeps the spare Brandvik key under the boathouse?"
NOTE = "The zephyr lantern hangs in the northern pavilion."
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


@dataclass
class Told:
    """What both nodes told after some asks."""

    cloud: str
    edge: str
    cloud_health: tuple[int, dict[str, str]]
    edge_health: tuple[int, dict[str, str]]
    lines: list[dict[str, Any]]
    request_ids: set[str]
    spans: list[tuple[str, Any]]


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def telemetry_of(cloud: LocalCloud) -> str:
    """The address; the gateway's log line has it."""
    return str(cloud.gateway.telemetry)


def value(page: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    wanted = {f'{label}="{said}"' for label, said in labels.items()}
    return sum(
        float(number)
        for found, said, number in SAMPLE.findall(page)
        if found == name and wanted <= set(said.split(","))
    )


@pytest.fixture
async def told(
    start_local: Start,
    certificates: Certificates,
    tiny_receiver: Path,
    tiny_bundle: Path,
    caplog: pytest.LogCaptureFixture,
) -> AsyncIterator[Told]:
    """A fused answer, an unknown document, a search, notes, the Receiver alone, and one without a key."""
    caplog.set_level(logging.INFO)
    with collecting() as collector:
        yield await _told(start_local, certificates, tiny_receiver, tiny_bundle, caplog, collector)


async def _told(
    start_local: Start,
    certificates: Certificates,
    tiny_receiver: Path,
    tiny_bundle: Path,
    caplog: pytest.LogCaptureFixture,
    collector: Collector,
) -> Told:
    telemetry = dataclasses.replace(LISTEN, otlp=collector.url)
    cloud = await start_local(telemetry=telemetry)
    config = edge_of(certificates, cloud.address, tiny_receiver, tiny_bundle, tokens=8, max_positions=8)
    config = dataclasses.replace(config, telemetry=telemetry)
    receiver = Receiver(*load_model(tiny_receiver), Bundle.load(tiny_bundle))

    def asked() -> tuple[str, tuple[int, str]]:
        with Assistant(config, receiver, Client(config)) as assistant, contextlib.ExitStack() as stack:
            api = stack.enter_context(serving_api(assistant))
            told = stack.enter_context(api.watch.telling())
            assert told is not None
            for body in (
                {"question": QUESTION, "document": "note-1"},
                {"question": QUESTION, "document": "no-such-zebra"},
                {"question": QUESTION, "document": "foreign"},
                {"question": QUESTION, "document": "note-1", "notes": NOTE, "stream": True},
                {"question": QUESTION, "source": "receiver-only"},
            ):
                api.call(body)
            api.call(None, "GET", "/v1/kvwire/search?q=spare")
            api.call({"question": QUESTION}, Origin="http://elsewhere.example")
            return get(told, "/metrics")[1], get(told, "/healthz")

    edge, (status, health) = await asyncio.to_thread(asked)
    address = telemetry_of(cloud)
    page, (cloud_status, cloud_health) = await asyncio.to_thread(
        lambda: (get(address, "/metrics")[1], get(address, "/healthz"))
    )
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    ids = {json.loads(line)["request_id"] for line in cloud.audit.read_text().splitlines()}
    await asyncio.to_thread(cloud.service.traces.close)
    healths = (cloud_status, json.loads(cloud_health)), (status, json.loads(health))
    return Told(page, edge, *healths, lines, ids, collector.spans)


def test_both_nodes_count_what_they_did(told: Told) -> None:
    share = "kvwire.v1.SharerService/Share"
    calls = "rpc_server_call_duration_seconds_count"
    assert value(told.cloud, calls, rpc_method=share, rpc_response_status_code="OK") == 2
    assert value(told.cloud, calls, rpc_method=share, rpc_response_status_code="NOT_FOUND") == 2
    assert value(told.cloud, "kvwire_cloud_refusals_total", reason="NOT_FOUND") == 2
    assert value(told.cloud, "kvwire_cloud_stage_seconds_count", stage="prefill") == 2
    assert value(told.cloud, "kvwire_cloud_stage_seconds_count", stage="turn") == 2
    assert value(told.cloud, "kvwire_cloud_sent_positions_total", kind="excerpt") == 16
    found = {
        s: value(told.cloud, "kvwire_cloud_prefixes_total", source=s) for s in ("model", "memory", "disk")
    }
    assert found == {"model": 1, "memory": 1, "disk": 0}
    sent = value(told.cloud, "kvwire_cloud_sent_payload_bytes_total", kind="excerpt", codec="raw")
    assert 0 < value(told.cloud, "kvwire_cloud_sent_raw_bytes_total", kind="excerpt", codec="raw") <= sent
    assert (
        0 < value(told.edge, "kvwire_edge_received_payload_bytes_total", kind="excerpt", codec="raw") <= sent
    )
    for name in ("serving", "audit_writable", "replicas_up"):
        assert value(told.cloud, f"kvwire_cloud_{name}") == 1, name
    assert 3600 < value(told.cloud, "kvwire_cloud_certificate_remaining_seconds") < 10 * 366 * 86_400
    assert value(told.cloud, "kvwire_cloud_calls_in_flight") == 0
    assert value(told.edge, "kvwire_edge_asks_total", source="fused") == 2
    assert value(told.edge, "kvwire_edge_asks_total", source="failed", reason="NOT_FOUND") == 2
    assert value(told.edge, "kvwire_edge_asks_total", source="receiver-only", reason="REQUESTED") == 1
    model = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "kvwire",
        "gen_ai_request_model": "tiny-receiver",
    }
    assert value(told.edge, "gen_ai_server_request_duration_seconds_count", **model, error_type="") == 3
    failed = value(told.edge, "gen_ai_server_request_duration_seconds_count", error_type="NOT_FOUND")
    assert failed == 2
    assert value(told.edge, "gen_ai_server_time_to_first_token_seconds_count", **model) == 3
    tokens = {
        s: value(told.edge, "gen_ai_client_token_usage_sum", **model, gen_ai_token_type=s)
        for s in ("input", "output")
    }
    assert tokens["input"] > 0 and tokens["output"] > 0
    assert value(told.edge, "kvwire_edge_refused_callers_total", check="origin") == 1
    assert value(told.edge, "kvwire_edge_received_bytes_total") > sent
    assert (
        value(told.edge, "kvwire_edge_connected") == 1 and value(told.edge, "kvwire_edge_circuit_open") == 0
    )
    assert 0 < value(told.edge, "kvwire_edge_round_trip_seconds") < 60


def test_health_says_whether_calls_are_taken_and_how_the_last_one_ended(told: Told) -> None:
    assert told.cloud_health == (200, {"status": "SERVING"})
    assert told.edge_health == (200, {"status": "SERVING", "cloud": "OK", "connection": "connected"})


def test_nothing_private_is_in_metrics_or_logs(told: Told) -> None:
    """Words of documents, of the question and of notes, ids of documents, and the tenants': in no span either."""
    private = [*(text for _, text in DOCUMENTS), *DOCUMENTS.values(), QUESTION, NOTE, "no-such-zebra", "acme"]
    said = "\n".join([told.cloud, told.edge, *map(json.dumps, told.lines), *map(str, told.spans)]).casefold()
    ordinary = {"every", "under", "from"}
    ordinary |= set(re.findall(r"\w+", " ".join(m.help for m in (*CLOUD, *EDGE)).casefold()))
    words = {word for text in private for word in re.findall(r"\w{4,}", text.casefold())} - ordinary
    assert {"brandvik", "zephyr", "zebra", "acme", "spare"} <= words
    assert not words & set(re.findall(r"\w+", said)), words & set(re.findall(r"\w+", said))


def test_a_slice_has_the_same_id_in_both_logs(told: Told) -> None:
    calls = {
        line["request_id"]: line
        for line in told.lines
        if line["event"] == "call" and line["method"] == "Share"
    }
    asks = {
        line["request_id"]: line
        for line in told.lines
        if line["event"] == "ask" and line["source"] == "fused"
    }
    assert len(asks) == 2 and asks.keys() <= calls.keys() and asks.keys() <= told.request_ids
    for request_id, ask in asks.items():
        assert ask["positions"] == calls[request_id]["positions"] == 8
        assert calls[request_id]["reason"] == "SERVED"


def test_a_slice_is_one_trace_over_both_nodes_by_the_id_in_both_logs(told: Told) -> None:
    fused = [
        line["request_id"] for line in told.lines if line["event"] == "ask" and line["source"] == "fused"
    ]
    assert len(fused) == 2
    for request_id in fused:
        own = [(service, span) for service, span in told.spans if span.trace_id.hex() == request_id]
        spans = {(service, span.name): span for service, span in own}
        ask, share = spans["kvwire-edge", "ask"], spans["kvwire-cloud", "kvwire.v1.SharerService/Share"]
        assert share.parent_span_id == ask.span_id
        below = {
            (service, span.name)
            for service, span in own
            if span.parent_span_id in (ask.span_id, share.span_id)
        }
        assert below >= {
            ("kvwire-edge", name) for name in ("queue", "connect", "transfer", "fuse", "generate")
        }
        assert below >= {("kvwire-cloud", name) for name in ("turn", "queue", "prefill", "encode")}
        for span in spans.values():
            assert ask.start_time_unix_nano - 10**7 <= span.start_time_unix_nano <= span.end_time_unix_nano


async def test_a_node_that_drains_says_that_it_does_not_serve(start_local: Start) -> None:
    cloud = await start_local(telemetry=LISTEN)
    await cloud.gateway._health.end()
    status, said = await asyncio.to_thread(get, telemetry_of(cloud), "/healthz")
    assert (status, json.loads(said)) == (503, {"status": "NOT_SERVING", "why": "draining"})


def test_the_page_on_operations_names_every_metric_as_it_is() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = [f"| `{m.name}` | {m.kind} | {', '.join(m.labels)} | {m.help} |" for m in (*CLOUD, *EDGE)]
    assert [line for line in page.splitlines() if re.match(r"\| `(kvwire|rpc|gen_ai)_", line)] == rows


def test_every_metric_of_the_catalogue_is_in_a_scrape(told: Told) -> None:
    for page, metrics in ((told.cloud, CLOUD), (told.edge, EDGE)):
        for metric in metrics:
            assert f"# TYPE {metric.name.removesuffix('_total')}" in page, metric.name


DEPLOY = ROOT / "ops" / "deploy"
NAME = re.compile(r"\b(?:kvwire|rpc|gen_ai)_\w+(?=[\[{ )]|$)")


def expressions() -> list[str]:
    board = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
    alerts = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return asked + [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]


def test_dashboard_and_alerts_ask_for_nothing_that_no_node_tells(told: Told) -> None:
    found = {name for name, _, _ in SAMPLE.findall(told.cloud + told.edge)}
    labels = {name for metric in (*CLOUD, *EDGE) for name in metric.labels}
    asked = {name for expression in expressions() for name in NAME.findall(expression)} - labels
    # Damage did not happen here, nor has every pair of labels: such a metric has its type line, and no sample yet.
    declared = set(re.findall(r"^# TYPE (\w+) ", told.cloud + told.edge, re.MULTILINE))
    assert len(asked) > 20 and asked <= found | declared, asked - found - declared
    for metric in (*CLOUD, *EDGE):
        assert any(name.startswith(metric.name) for name in asked), f"nobody looks at {metric.name}"
    reasons = {
        one for e in expressions() for said in re.findall(r'reason=~?"([^"]+)"', e) for one in said.split("|")
    }
    for reason in reasons:
        assert f'kvwire_cloud_refusals_total{{reason="{reason}"}}' in told.cloud, reason


def test_the_page_on_operations_says_what_to_do_for_each_alert() -> None:
    alerts = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))
    named = [rule["alert"] for group in alerts["groups"] for rule in group["rules"]]
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(Kvwire\w+)` \|", page, re.MULTILINE) == named
