"""What share of a slow link a long slice uses while it streams."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.progress import Progress

from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import Segment, SliceKind, SliceTrailer
from ops.bench.wide import BYTES_PER_POSITION, save_wide_pair
from ops.demo.stage import CLOUD_START_S, Cast, DemoStage
from ops.link.shape import Shape

if TYPE_CHECKING:
    from edge_node import Client
    from fuser.bundle.bundle import Bundle
    from ops.link.background import BackgroundLink

STREAM_S: Final = 3.0
"""How long a slice takes at the link's full rate, at least; twice that from a Sharer that computes in float32."""
ROUNDS: Final = 3
_RAW: Final = Plan(codec="raw")
_WORD: Final = " stone"  # one token in any of the usual tokenizers; if not, slices are longer


def measure(
    shapes: Sequence[Shape],
    like: Path,
    folder: Path,
    progress: Progress,
    check: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """One entry a link; a cloud node as a process, the edge's client here, `raw` slices.

    The share is counted from the end of a slice's first segment to the end of its last, so what comes before a stream,
    the request's round trip and the first layer, is left out, and a stream that waits for the Sharer is not. It is of
    payload bytes: checksums, TLS, HTTP/2 count as unused.

    Args:
        like: a model's directory, whose tokenizer is taken.
        folder: for the pair, certificates, configurations and logs of this run.
    """
    from edge_node import Client, EdgeConfig
    from fuser.bundle.bundle import Bundle
    from ops.link.background import BackgroundLink

    start = progress.add_task("starting a cloud node with a wide pair", total=1)
    model, bundle = save_wide_pair(folder, like)
    cast = Cast(str(model), str(model), bundle, _RAW.codec, device="cpu")
    links: list[BackgroundLink] = []
    with contextlib.ExitStack() as stack:

        def way(cloud: str) -> str:
            links.append(stack.enter_context(BackgroundLink(cloud, shapes[0])))
            return links[0].address

        stage = stack.enter_context(DemoStage(folder, cast, (), way=way, record=False, edge_runs=False))
        stage.cloud.address(CLOUD_START_S, check)
        progress.advance(start)
        client = stack.enter_context(Client(EdgeConfig.load(folder / "edge" / "edge.toml")))
        stream = _Stream(client, Bundle.load(bundle))
        bar = progress.add_task("streaming long slices", total=len(shapes) * (ROUNDS + 1))
        found = []
        for shape in shapes:
            progress.update(bar, description=f"a long slice, {shape}")
            links[0].reshape(shape)
            rounds = []
            for _ in range(ROUNDS + 1):
                check()
                rounds.append(stream.run(shape.down_mbit))
                progress.advance(bar)
            found.append({"rate_mbit": shape.down_mbit, "rtt_ms": shape.rtt_ms} | _entry(rounds))
    return found


def markdown(found: Sequence[Mapping[str, Any]]) -> str:
    """A table, a line a link."""
    lines = [
        "Share of the link that a long `raw` slice uses while it streams, payload bytes only:",
        "",
        "| link | first on a new connection | then, median (least - most) | payload, MB |",
        "|---|---|---|---|",
    ]
    for one in found:
        share = one["share"]
        lines.append(
            f"| {one['rate_mbit']:g} Mbit/s, {one['rtt_ms']:g} ms | {one['share_first']:.3f} | "
            f"{share['median']:.3f} ({share['min']:.3f} - {share['max']:.3f}) | {one['payload_bytes'] / 1e6:.1f} |"
        )
    return "\n".join(lines)


class _Stream:
    """Streams slices that would take `STREAM_S` at full rate."""

    def __init__(self, client: Client, bundle: Bundle) -> None:
        self._client, self._bundle = client, bundle

    def run(self, rate_mbit: float) -> dict[str, float]:
        """Shares of the link in one slice, and its size."""
        positions = max(16, int(rate_mbit * 125_000 * STREAM_S / BYTES_PER_POSITION))
        sections = [
            Section(Role.DOCUMENT, Visibility.SHARED, text=_WORD * positions),
            Section(Role.QUESTION, Visibility.SHARED, text="?"),
        ]
        came: list[tuple[float, int]] = []  # when, and payload bytes until then
        shared = self._client.share(
            sections, self._bundle, kind=SliceKind.SHARED, plan=_RAW, deadline_s=10 * STREAM_S + 60
        )
        try:
            size = 0
            for part in shared:
                if isinstance(part, Segment):
                    size += part.spec.raw_bytes
                    came.append((time.monotonic(), size))
                elif isinstance(part, SliceTrailer) and part.payload_bytes != size:
                    raise RuntimeError(f"{size} bytes of {part.payload_bytes} were counted")
        finally:
            shared.close()
        (began, before), (ended, after) = came[0], came[-1]
        return {
            "share": (after - before) / ((ended - began) * rate_mbit * 125_000),
            "payload_bytes": size,
            "seconds": ended - began,
        }


def _entry(rounds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    first, *warm = (one["share"] for one in rounds)
    return {
        "payload_bytes": rounds[0]["payload_bytes"],
        "seconds": [round(one["seconds"], 4) for one in rounds],
        "share_first": round(first, 4),
        "share": {
            "median": round(statistics.median(warm), 4),
            "min": round(min(warm), 4),
            "max": round(max(warm), 4),
        },
    }
