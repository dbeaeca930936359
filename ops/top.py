"""Numbers of running nodes for `kvwire top`: pages of metrics in, rates and quantiles between two of them out."""

import math
import time
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Labels = frozenset[tuple[str, str]]
_TIMEOUT_S: Final = 5.0
_CALLS: Final = "rpc_server_call_duration_seconds"
_ANSWERS: Final = "gen_ai_server_request_duration_seconds"


@dataclass(frozen=True, slots=True)
class Page:
    """One scrape: samples by name and labels, and when it was, in seconds since 1970."""

    at: float
    samples: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, url: str) -> "Page":
        """Ask a node. Raises OSError: it is not there. ValueError: what it says is no page of metrics."""
        from prometheus_client.parser import text_string_to_metric_families

        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url} is no http address of a node's metrics")
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply:
                text = reply.read().decode()
        except OSError as error:
            raise OSError(
                f"no metrics at {url} ({error}); a node serves them where `listen` under [telemetry] of its "
                "configuration says; `kvwire init` writes that line as a comment"
            ) from error
        samples: dict[str, dict[Labels, float]] = defaultdict(dict)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples[sample.name][frozenset(sample.labels.items())] = sample.value
        if not any(name.startswith("kvwire_") for name in samples):
            raise ValueError(f"{url} is no page of a node's metrics")
        return cls(time.time(), samples)

    def begun(self) -> "Page":
        """The same node when it began: nothing was counted yet."""
        return Page(self.value("process_start_time_seconds") or self.at)

    def value(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels; 0 where there is none."""
        wanted = set(labels.items())
        return sum(value for said, value in self.samples.get(name, {}).items() if wanted <= said)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Sums of a metric for each value of a label."""
        found: dict[str, float] = defaultdict(float)
        for said, value in self.samples.get(name, {}).items():
            found[dict(said).get(label, "")] += value
        return dict(found)

    def bounds(self, name: str, **labels: str) -> dict[float, float]:
        """Observations at or below each bound of a histogram."""
        found: dict[float, float] = defaultdict(float)
        for said, value in self.samples.get(f"{name}_bucket", {}).items():
            if set(labels.items()) <= said:
                found[float(dict(said)["le"])] += value
        return dict(found)


def numbers(before: Page, now: Page) -> dict[str, Any]:
    """What a node did between two scrapes: plain values, seconds and bytes; None where nothing was measured."""
    span_s = max(now.at - before.at, 1e-3)

    def rate(name: str) -> float:
        return max(0.0, now.value(name) - before.value(name)) / span_s

    def told(value: float) -> float | None:
        return None if math.isnan(value) else value

    if "kvwire_cloud_serving" in now.samples:
        return {
            "node": "cloud",
            "per_s": rate(f"{_CALLS}_count"),
            "p50_s": quantile(0.5, before, now, _CALLS),
            "p99_s": quantile(0.99, before, now, _CALLS),
            "bytes_per_s": rate("kvwire_cloud_sent_payload_bytes_total"),
            "ended": _since(before, now, f"{_CALLS}_count", "rpc_response_status_code"),
            "queue": now.value("kvwire_cloud_calls_in_flight"),
            "well": now.value("kvwire_cloud_serving") == 1,
            "replicas": now.value("kvwire_cloud_replicas_up"),
        }
    return {
        "node": "edge",
        "per_s": rate("kvwire_edge_asks_total"),
        # Of answers alone: one refused with BUSY took no time.
        "p50_s": quantile(0.5, before, now, _ANSWERS, error_type=""),
        "p99_s": quantile(0.99, before, now, _ANSWERS, error_type=""),
        "bytes_per_s": rate("kvwire_edge_received_bytes_total"),
        "ended": _since(before, now, "kvwire_edge_asks_total", "source"),
        "queue": now.value("kvwire_edge_queue_length"),
        "well": now.value("kvwire_edge_circuit_open") == 0,
        "bandwidth_bytes_per_s": told(now.value("kvwire_edge_bandwidth_bytes_per_second")),
        "round_trip_s": told(now.value("kvwire_edge_round_trip_seconds")),
    }


def quantile(share: float, before: Page, now: Page, name: str, **labels: str) -> float | None:
    """Of a histogram's observations between two scrapes, as Prometheus' histogram_quantile: linear in its bucket."""
    old = before.bounds(name, **labels)
    counts = {bound: count - old.get(bound, 0.0) for bound, count in now.bounds(name, **labels).items()}
    bounds = sorted(counts)
    if not bounds or counts[bounds[-1]] <= 0:
        return None
    rank, low, below = share * counts[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if counts[bound] >= rank:
            if math.isinf(bound):
                return low
            inside = counts[bound] - below
            return low + (bound - low) * ((rank - below) / inside if inside else 1.0)
        low, below = bound, counts[bound]
    return low


def _since(before: Page, now: Page, name: str, label: str) -> dict[str, int]:
    old = before.by(name, label)
    counts = {value: int(count - old.get(value, 0.0)) for value, count in now.by(name, label).items()}
    return {value: count for value, count in sorted(counts.items()) if count > 0}


def line(url: str, told: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the table."""
    ended = ", ".join(f"{count} {how}" for how, count in told["ended"].items()) or "-"
    if told["node"] == "cloud":
        state = f"{'serving' if told['well'] else 'NOT serving'}, {told['replicas']:.0f} replicas"
    else:
        rtt = told["round_trip_s"]
        states = ([] if told["well"] else ["circuit open"]) + (
            [] if rtt is None else [f"round trip {1_000 * rtt:.0f} ms"]
        )
        state = ", ".join(states) or "-"
    return (
        f"{told['node']} {url.partition('://')[2].partition('/')[0]}",
        f"{told['per_s']:.2f}",
        _ms(told["p50_s"]),
        _ms(told["p99_s"]),
        f"{told['bytes_per_s']:,.0f}",
        f"{told['queue']:.0f}",
        ended,
        state,
    )


COLUMNS: Final = ("node", "calls/s", "p50 ms", "p99 ms", "bytes/s", "here", "ended", "state")


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1_000 * seconds:,.0f}"
