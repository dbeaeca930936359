"""`kvwire bench replies`: what bytes and seconds of the replies of a real cloud tell of the documents asked about."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.progress import Progress

from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceHeader, SliceKind, SliceTrailer
from ops.demo.samples import DemoSample
from ops.demo.stage import CLOUD_START_S, Cast, DemoStage

if TYPE_CHECKING:
    from edge_node import AsyncClient
    from fuser.bundle.bundle import Bundle
    from fuser.lab.leakage.observed import Observed

_DEADLINE_S: Final = 120.0
_QUESTIONS: Final = ("What is this about?", "Which number stands here?")
"""Round after round, each of all documents: what is asked tells nothing of which it is asked about."""
STATES: Final[Mapping[str, Mapping[str, Any]]] = {
    "read for each question": {"prefix_cache_bytes": 0, "prefix_store": ""},
    "read before": {},
}
"""Of the cloud, and settings of its Sharer."""
OBSERVERS: Final[Mapping[str, Sequence[str]]] = {
    "bytes": ("bytes",),
    "seconds": ("first_s", "all_s"),
    "both, as the network sees": ("bytes", "first_s", "all_s"),
    "all that an edge is told": (
        "bytes",
        "first_s",
        "all_s",
        "positions",
        "queue_s",
        "prefill_s",
        "encode_s",
    ),
}


@dataclass(frozen=True, slots=True)
class RepliesBench:
    """What to measure: each text is asked about once a round, in both states of the cloud."""

    cast: Cast
    kind: SliceKind
    plan: Plan
    texts: tuple[str, ...]
    rounds: int


def measure(
    bench: RepliesBench, folder: Path, progress: Progress, check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """The cloud as a process of its own, one caller in this one; the order of the documents is another in each round.

    Raises:
        NodeFailed, KvwireError: the cloud did not start, or a call failed. ValueError: there are too few documents or
            rounds.
    """
    from edge_node import EdgeConfig
    from fuser.bundle.bundle import Bundle

    samples = [DemoSample(f"text-{number}", text, "", ()) for number, text in enumerate(bench.texts)]
    bundle, lengths = Bundle.load(bench.cast.bundle), [len(text) for text in bench.texts]
    total = len(STATES) * len(samples) * (bench.rounds + 1)
    bar = progress.add_task("starting the cloud node", total=total)
    states: dict[str, Any] = {}
    for number, (state, settings) in enumerate(STATES.items()):
        place = folder / str(number)
        place.mkdir()
        with DemoStage(
            place, bench.cast, samples, record=False, edge_runs=False, sharer=dict(settings)
        ) as stage:
            stage.cloud.address(CLOUD_START_S, check)
            progress.update(bar, description=state)
            config = EdgeConfig.load(place / "edge" / "edge.toml")
            replies = asyncio.run(_rounds(bench, config, bundle, lambda: progress.advance(bar), check))
        states[state] = judged(replies, lengths)
    valid = all(
        c["passed"] for seen in states.values() for one in seen["observers"].values() for c in one["checks"]
    )
    return {"valid": valid, "documents": len(lengths), "rounds": bench.rounds, "states": states}


def judged(replies: Sequence[Mapping[str, float]], lengths: Sequence[int]) -> dict[str, Any]:
    """What each observer finds in replies, which have "document", "round" and what `OBSERVERS` name."""
    observers = {}
    for name, columns in OBSERVERS.items():
        observed = _observed(replies, lengths, columns)
        observers[name] = {"attacks": observed.found(), "checks": observed.checks()}
    return {"observers": observers, "replies": list(replies)}


def markdown(report: Mapping[str, Any]) -> str:
    """A table of a report: an observer a line; in brackets the interval, behind the bar the control."""
    results = report["results"]
    attacks = list(next(iter(results["states"].values()))["observers"][next(iter(OBSERVERS))]["attacks"])
    lines = [
        f"{results['documents']} documents, {results['rounds']} replies over each; %, with 95 % intervals over "
        "documents or pairs; behind the bar after shuffled labels.",
        "",
        "| the document is | who sees | " + " | ".join(attacks) + " |",
        "|---" * (2 + len(attacks)) + "|",
    ]
    for state, seen in results["states"].items():
        for name, one in seen["observers"].items():
            cells = (
                "{point:.1f} [{low:.1f}, {high:.1f}] \\| {control:.1f}".format(
                    **{key: 100 * found[key] for key in ("point", "low", "high", "control")}
                )
                for found in (one["attacks"][attack] for attack in attacks)
            )
            lines.append(f"| {state} | {name} | " + " | ".join(cells) + " |")
    if not results["valid"]:
        lines += ["", "**Void**: a planted leak is not found, or shuffled labels are read."]
    return "\n".join(lines)


def _observed(
    replies: Sequence[Mapping[str, float]], lengths: Sequence[int], columns: Sequence[str]
) -> Observed:
    import torch

    from fuser.lab.leakage.observed import Observed

    seen = [[math.log1p(1e3 * reply[column]) for column in columns] for reply in replies]
    documents = [int(reply["document"]) for reply in replies]
    halves, questions = zip(*(divmod(int(reply["round"]), len(_QUESTIONS)) for reply in replies), strict=True)
    return Observed(*map(torch.tensor, (seen, documents, questions, [half % 2 for half in halves], lengths)))


async def _rounds(
    bench: RepliesBench, config: Any, bundle: Bundle, done: Callable[[], None], check: Callable[[], None]
) -> list[dict[str, float]]:
    """The replies of all rounds but the first, in which kernels, pages and prefixes come to be there."""
    from edge_node import AsyncClient

    client, chance = AsyncClient(config), random.Random(1)
    replies = []
    try:
        await client.describe(_DEADLINE_S)
        for number in range(-1, bench.rounds):
            for document in chance.sample(range(len(bench.texts)), len(bench.texts)):
                check()
                reply = await _reply(bench, client, bundle, document, _QUESTIONS[number % len(_QUESTIONS)])
                done()
                if number >= 0:
                    replies.append({"document": document, "round": number} | reply)
    finally:
        await client.close()
    return replies


async def _reply(
    bench: RepliesBench, client: AsyncClient, bundle: Bundle, document: int, question: str
) -> dict[str, float]:
    sections = (
        Section(Role.DOCUMENT, Visibility.CLOUD, document_id=f"text-{document}"),
        Section(Role.QUESTION, Visibility.SHARED, text=question),
    )
    began, first_s, told = time.monotonic(), 0.0, dict[str, float]()
    shared = client.share(sections, bundle, kind=bench.kind, plan=bench.plan, deadline_s=_DEADLINE_S)
    async for part in shared:
        if isinstance(part, SliceHeader):
            first_s = time.monotonic() - began
        elif isinstance(part, SliceTrailer):
            told = {"positions": part.positions} | {f"{name}_s": took for name, took in part.timings.items()}
    return told | {"bytes": shared.bytes_received, "first_s": first_s, "all_s": time.monotonic() - began}
