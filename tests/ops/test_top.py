"""`kvwire top`: what is shown is what two pages of metrics differ by."""

import json

import pytest
from typer.testing import CliRunner

from cloud_node.call import CLOUD
from edge_node.metrics import EDGE
from kvwire.telemetry import Meter, TelemetryConfig, telling
from ops.cli import app
from ops.commands.top import _looked
from ops.output import console
from ops.top import Page, line, numbers, quantile

VALUES = {name: ("OK", "NOT_FOUND", "fused", "total", "raw") for m in (*CLOUD, *EDGE) for name in m.labels}


def page(meter: Meter) -> Page:
    with telling(TelemetryConfig("127.0.0.1:0"), meter, lambda: (True, {})) as address:
        return Page.of(f"http://{address}/metrics")


def calls(meter: Meter, seconds: float, status: str = "OK") -> None:
    meter.observe(
        "rpc_server_call_duration_seconds", seconds, rpc_method="OK", rpc_response_status_code=status
    )


def test_rates_and_quantiles_are_of_the_time_between_two_looks() -> None:
    meter = Meter(CLOUD, VALUES)
    calls(meter, 100.0, "NOT_FOUND")
    before = page(meter)
    for _ in range(99):
        calls(meter, 0.04)
    calls(meter, 4.0)
    meter.add("kvwire_cloud_sent_payload_bytes_total", 500, kind="OK", codec="raw")
    now = page(meter)
    told = numbers(before, Page(before.at + 10.0, now.samples))
    assert (told["node"], told["per_s"], told["bytes_per_s"], told["ended"]) == (
        "cloud",
        10.0,
        50.0,
        {"OK": 100},
    )
    assert 0.025 < told["p50_s"] < 0.05 and 0.025 < told["p99_s"] <= 0.05
    last = quantile(0.999, before, now, "rpc_server_call_duration_seconds")
    assert last is not None and 2.5 < last <= 5.0
    assert numbers(now, now)["p50_s"] is None


def test_seconds_of_an_edge_are_those_of_answers_and_not_of_refusals() -> None:
    named = {m.name: dict.fromkeys(m.labels, "total") for m in EDGE}["gen_ai_server_request_duration_seconds"]
    meter = Meter(EDGE, VALUES | {"error_type": ("", "BUSY")})
    before = page(meter)
    for seconds, error in [(0.0, "BUSY")] * 9 + [(4.0, "")]:
        meter.observe("gen_ai_server_request_duration_seconds", seconds, **named | {"error_type": error})
    told = numbers(before, page(meter))
    assert told["p50_s"] > 2.0 and told["p99_s"] > 2.0
    assert numbers(before, before)["p50_s"] is None


def test_once_and_json_tell_of_all_since_a_node_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 200)
    cloud, edge = Meter(CLOUD, VALUES), Meter(EDGE, VALUES)
    calls(cloud, 0.1)
    edge.add("kvwire_edge_asks_total", source="fused", reason="OK")
    edge.read("kvwire_edge_round_trip_seconds", lambda: None)
    config = TelemetryConfig("127.0.0.1:0")
    with (
        telling(config, cloud, lambda: (True, {})) as one,
        telling(config, edge, lambda: (True, {})) as two,
    ):
        urls = [f"--url=http://{address}/metrics" for address in (one, two)]
        done = CliRunner().invoke(app, ["top", *urls, "--once", "--json"])
        told = json.loads(done.stdout)
        assert [node["node"] for node in told] == ["cloud", "edge"]
        assert told[0]["ended"] == {"OK": 1} and told[1]["ended"] == {"fused": 1}
        assert told[1]["round_trip_s"] is None and 0 < told[0]["per_s"] < 10
        shown = CliRunner().invoke(app, ["top", *urls, "--once"])
        assert shown.exit_code == 0 and f"edge {two}" in shown.stdout and "1 fused" in shown.stdout


def test_a_node_that_goes_away_is_a_row_and_not_the_end() -> None:
    meter = Meter(CLOUD, VALUES)
    with telling(TelemetryConfig("127.0.0.1:0"), meter, lambda: (True, {})) as address:
        url = f"http://{address}/metrics"
        pages = {url: Page.of(url)}
        assert _looked(url, pages)[0] == f"cloud {address}"
    assert "refused" in _looked(url, pages)[-1]


def test_what_is_no_node_is_refused() -> None:
    with pytest.raises(ValueError, match="no http address"):
        Page.of("file:///etc/passwd")
    done = CliRunner().invoke(app, ["top", "--url", "http://127.0.0.1:1/metrics", "--once"])
    assert done.exit_code == 1


@pytest.mark.parametrize(
    ("circuit", "rtt_s", "state"),
    [
        (0, None, "-"),
        (0, 0.0234, "round trip 23 ms"),
        (1, None, "circuit open"),
        (1, 0.1, "circuit open, round trip 100 ms"),
    ],
)
def test_the_state_of_an_edge_is_in_words(circuit: int, rtt_s: float | None, state: str) -> None:
    edge = Meter(EDGE, VALUES)
    edge.read("kvwire_edge_circuit_open", lambda: circuit)
    edge.read("kvwire_edge_round_trip_seconds", lambda: rtt_s)
    now = page(edge)
    assert line("http://127.0.0.1:9464/metrics", numbers(now.begun(), now))[-1] == state
