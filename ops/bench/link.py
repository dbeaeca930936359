"""`kvwire bench link`: the time to an answer over links of several speeds, each way to it beside text."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from ops.bench.link_report import summarise
from ops.bench.ways import TEXTS, Asker, Way
from ops.demo.samples import DemoQuestion, DemoSample, load_samples
from ops.demo.stage import CLOUD_START_S, EDGE_START_S, Cast, DemoStage
from ops.link.shape import Shape


@dataclass(frozen=True, slots=True)
class LinkBench:
    """What to measure: every way over every link, for some questions."""

    cast: Cast
    ways: tuple[Way, ...]
    shapes: tuple[Shape, ...]
    questions: int
    max_new_tokens: int = 24


def measure(
    bench: LinkBench, folder: Path, progress: Progress, check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Both nodes as processes, the edge's calls through the link. `check` is called often, and ends it by raising.

    The cloud caches no prefixes: a relay reads its document every time, and so does a slice then. Every document is
    asked about once before anything is timed, and each link carries one answer of each kind of call first, so that its
    connections are open.

    Args:
        folder: for certificates, configurations and logs of this run.

    Raises:
        NodeFailed, AskFailed, KvwireError: a node did not start, or refused a question.
    """
    from edge_node import Client, EdgeConfig
    from fuser.bundle.bundle import Bundle
    from ops.demo.edge_api import EdgeApi
    from ops.link.background import BackgroundLink

    asked = questions(bench.questions)
    samples = list(dict.fromkeys(sample for sample, _ in asked))
    links: list[BackgroundLink] = []
    with contextlib.ExitStack() as stack:

        def way(cloud: str) -> str:
            links.append(stack.enter_context(BackgroundLink(cloud, bench.shapes[0])))
            return links[0].address

        start = progress.add_task("starting both nodes", total=2)
        stage = stack.enter_context(
            DemoStage(
                folder,
                bench.cast,
                samples,
                way=way,
                allow_relay=True,
                record=False,
                sharer={"prefix_cache_bytes": 0, "prefix_store": ""},
            )
        )
        api = EdgeApi(stage.edge.address(EDGE_START_S, check))
        progress.advance(start)
        stage.cloud.address(CLOUD_START_S, check)
        progress.advance(start)
        config = EdgeConfig.load(folder / "edge" / "edge.toml")
        client = stack.enter_context(Client(config))
        asker = Asker(api, client, Bundle.load(bench.cast.bundle), links[0], bench.max_new_tokens)
        records = _ask_all(bench, asked, asker, links[0].reshape, progress, check)
    return summarise(records)


def _ask_all(
    bench: LinkBench,
    asked: Sequence[tuple[DemoSample, DemoQuestion]],
    asker: Asker,
    reshape: Callable[[Shape], None],
    progress: Progress,
    check: Callable[[], None],
) -> list[dict[str, Any]]:
    """Ways take turns at every question, and who begins changes, so that a drift of the machine meets all alike."""
    by_slice = [way for way in bench.ways if way.plan is not None]
    by_text = [way for way in bench.ways if way.name in TEXTS]
    first = by_slice[:1] + by_text[:1]
    total = len(asked) * len(first) + len(bench.shapes) * (len(first) + len(asked) * len(bench.ways))
    bar = progress.add_task("reading the documents", total=total)

    def ask(way: Way, sample: DemoSample, question: DemoQuestion) -> dict[str, Any]:
        check()
        record = asker.ask(way, sample, question)
        progress.advance(bar)
        return record

    reshape(Shape(down_mbit=1_000, up_mbit=1_000))
    for (sample, question), way in itertools.product(asked, first):
        ask(way, sample, question)
    records = []
    for shape in bench.shapes:
        reshape(shape)
        progress.update(bar, description=str(shape))
        for way in first:
            ask(way, *asked[0])
        for number, (sample, question) in enumerate(asked):
            turn = number % len(bench.ways)
            for way in bench.ways[turn:] + bench.ways[:turn]:
                place = {"rate_mbit": shape.down_mbit, "rtt_ms": shape.rtt_ms, "way": way.name}
                records.append(place | {"document": sample.id, "number": number} | ask(way, sample, question))
    return records


def questions(limit: int) -> list[tuple[DemoSample, DemoQuestion]]:
    """The first question of every sample document, then the second, and so on, at most `limit`."""
    samples = load_samples()
    rounds = itertools.zip_longest(*(sample.questions for sample in samples))
    pairs = [(s, q) for row in rounds for s, q in zip(samples, row, strict=True) if q is not None]
    return pairs[:limit]


def working_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for one run, beside the fetched models."""
    from fuser.models.directory import cache_directory

    runs = cache_directory() / "bench"
    runs.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="run-", dir=runs, ignore_cleanup_errors=True)
