"""What a node tells of itself, with nothing else around it: numbers, health and lines of a log."""

import json
import logging
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cloud_node.call import CLOUD
from edge_node.metrics import EDGE
from kvwire.telemetry import JsonLines, Lines, Meter, TelemetryConfig, telling

VALUES = {name: ("one", "two") for metric in (*CLOUD, *EDGE) for name in metric.labels}


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextmanager
def served(meter: Meter, good: bool = True) -> Iterator[str]:
    with telling(TelemetryConfig("127.0.0.1:0"), meter, lambda: (good, {"cloud": "OK"})) as address:
        yield f"http://{address}"


def test_a_label_says_only_what_its_list_has() -> None:
    meter = Meter(CLOUD, VALUES)
    meter.add("kvwire_cloud_refusals_total", reason="two")
    meter.add("kvwire_cloud_refusals_total", reason="the spare key of acme")
    page = meter.page().decode()
    assert 'kvwire_cloud_refusals_total{reason="two"} 1.0' in page
    assert 'kvwire_cloud_refusals_total{reason="other"} 1.0' in page
    assert "acme" not in page


def test_a_metric_of_one_label_is_there_before_it_counts() -> None:
    assert 'kvwire_cloud_refusals_total{reason="one"} 0.0' in Meter(CLOUD, VALUES).page().decode()


def test_a_meter_without_metrics_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    meter = Meter()
    meter.add("kvwire_cloud_refusals_total", reason="one")
    meter.read("kvwire_cloud_serving", lambda: 1)


def test_metrics_and_health_are_served() -> None:
    meter = Meter(EDGE, VALUES)
    meter.read("kvwire_edge_round_trip_seconds", lambda: None)
    with served(meter) as url:
        status, page = get(f"{url}/metrics")
        assert (
            status == 200 and "kvwire_edge_round_trip_seconds NaN" in page and "process_cpu_seconds" in page
        )
        assert get(f"{url}/healthz") == (200, '{"status": "SERVING", "cloud": "OK"}')
        assert get(f"{url}/elsewhere")[0] == 404
    with served(meter, good=False) as url:
        assert get(f"{url}/healthz")[0] == 503


def test_callers_who_say_nothing_keep_nobody_out_for_long() -> None:
    with served(Meter(EDGE, VALUES)) as url:
        host, port = url.removeprefix("http://").split(":")
        silent = [socket.create_connection((host, int(port))) for _ in range(8)]
        assert get(f"{url}/healthz")[0] == 200
        for caller in silent:
            caller.close()


def test_an_address_that_is_taken_is_told_by_its_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(OSError, match=rf"telemetry\.listen {listen}"),
            telling(TelemetryConfig(listen), Meter(EDGE, VALUES), lambda: (True, {})),
        ):
            pass


def test_without_an_address_nothing_listens() -> None:
    before = threading.active_count()
    with telling(TelemetryConfig(), Meter(), lambda: (True, {})) as address:
        assert address is None and threading.active_count() == before


@pytest.mark.parametrize("listen", ["9464", "127.0.0.1:", ":9464", "127.0.0.1:99999", "a b:1", "::1:9464"])
def test_an_address_is_a_host_and_a_port(listen: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        TelemetryConfig(listen)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    with caplog.at_level(logging.INFO):
        yield Lines(logging.getLogger("test"), most_per_s=2)


def test_a_line_is_an_object_with_its_fields(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    lines.tell("call", method="Share", seconds=0.123456)
    (record,) = caplog.records
    told = json.loads(JsonLines().format(record))
    assert told.pop("time").endswith("+00:00")
    assert told == {"level": "INFO", "logger": "test", "event": "call", "method": "Share", "seconds": 0.1235}
    assert record.getMessage() == "call method=Share seconds=0.1235"


def test_an_exceptions_message_is_not_written() -> None:
    try:
        raise RuntimeError("a private text")
    except RuntimeError:
        record = logging.LogRecord("test", logging.ERROR, "", 0, "it %s", ("failed",), sys.exc_info())
    told = json.loads(JsonLines().format(record))
    assert (
        told["event"] == "it failed"
        and told["exception"] == "RuntimeError"
        and "test_telemetry" in told["at"]
    )
    assert "private" not in json.dumps(told)


def test_no_caller_fills_the_log(
    lines: Lines, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("kvwire.telemetry.time.monotonic", lambda: now[0])
    for _ in range(5):
        lines.tell("refused")
    assert len(caplog.records) == 2
    now[0] = 101.0
    lines.tell("refused")
    assert caplog.records[-1].getMessage() == "refused left_out=3"
