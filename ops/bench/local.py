"""`kvwire bench local`: the answer of the service beside the same models one after the other in one process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from rich.progress import Progress

from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from ops.bench import edge as edge_bench
from ops.bench.ratio import ratio_of, told
from ops.demo.edge_api import EdgeApi
from ops.demo.samples import DemoQuestion, DemoSample, filled_up, load_samples
from ops.demo.stage import CLOUD_START_S, EDGE_START_S, Cast, DemoStage

if TYPE_CHECKING:
    from ops.bench.sequential import Timed

Asked = tuple[DemoSample, DemoQuestion]

NOT_READ: Final = "first question, document not read"
READ: Final = "first question, document read when added"
NEXT: Final = "next question"
"""Over the same document: the cloud has its prefix in memory. The process of the baseline reads it for each of them."""
_LIMIT: Final = 16  # as many as the demo's cloud lets out
_EDGE_QUESTIONS: Final = 6  # each has the edge alone generate for some 12 s on two cores
_EDGE_CODES: Final = 8
_EDGE_TOKENS: Final = 32
_MARKS: Final = ("first_token", "answer")


@dataclass(frozen=True, slots=True)
class LocalBench:
    """What to measure.

    Attributes:
        documents: of the demo; each is asked about once in each round.
        tokens: that each document is filled up to; 0 leaves it as it is.
        cores: of each node, as `ops.demo.cores.halves` has them; None gives both all.
    """

    cast: Cast
    kind: SliceKind
    documents: int
    tokens: int = 500
    max_new_tokens: int = 24
    cores: Mapping[str, Collection[int]] | None = None

    def starts(self, samples: Sequence[DemoSample]) -> list[list[tuple[str, Asked]]]:
        """Questions with their rounds, for each start of both nodes: one without a store of what was read, one with it.

        Shared prompts have no document that could be read before.
        """
        first = [(sample, sample.questions[0]) for sample in samples]
        starts = [[(NOT_READ, asked) for asked in first]]
        if self.kind is not SliceKind.SHARED:
            second = [(sample, sample.questions[1]) for sample in samples if len(sample.questions) > 1]
            starts.append([(READ, asked) for asked in first] + [(NEXT, asked) for asked in second])
        return starts


def measure(
    bench: LocalBench, folder: Path, progress: Progress, check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Both nodes as processes of their own, and both models in this one, in turns; same dtype.

    This process has all cores and as many threads, whatever `bench.cores` gives the nodes.

    Raises:
        NodeFailed, AskFailed: a node did not start, or refused a question. ValueError: the demo's texts do not fill
            its documents up to `tokens`.
    """
    from ops.bench.sequential import Sequential

    threads = min(os.cpu_count() or 1, 8)  # as `DemoStage` gives the cloud; torch takes as many at the edge
    cast = bench.cast
    bar = progress.add_task("loading both models", total=None)
    local = Sequential(cast.sharer, cast.receiver, cast.bundle, threads, cast.device, cast.dtype)

    def count(text: str) -> int:
        return len(local.sharer.tokenizer(text, add_special_tokens=False)["input_ids"])

    *samples, warm = filled_up(load_samples(), bench.tokens, count)
    del samples[bench.documents :]
    warms_up = warm, warm.questions[0]
    starts = bench.starts(samples)
    progress.update(bar, total=2 * sum(map(len, starts)), description="the edge alone")
    own = {"edge": _edge(local, [sample.questions[0].text for sample in samples[:_EDGE_QUESTIONS]])}
    _alone(bench, local, warms_up)
    rows: list[dict[str, Any]] = []
    for start in starts:
        read = READ in dict(start)
        kept = {} if read else {"prefix_store": ""}
        place = folder / ("read" if read else "not-read")
        place.mkdir()
        stage = DemoStage(place, cast, [*samples, warm], record=False, sharer=kept, cores=bench.cores)
        if read:
            progress.update(bar, description="reading the documents")
            stage.read_documents()
        progress.update(bar, description="starting both nodes")
        with stage:
            api = EdgeApi(stage.edge.address(EDGE_START_S, check))
            stage.cloud.address(CLOUD_START_S, check)
            _serve(bench, api, warms_up)  # connections, kernels and pages are there
            progress.update(bar, description="asking")
            ways = [("service", partial(_serve, bench, api)), ("sequential", partial(_alone, bench, local))]
            for number, (round_, asked) in enumerate(start):
                row = {"round": round_, "document": asked[0].id, "tokens": count(asked[0].text)}
                for way, answer in ways if number % 2 else ways[::-1]:
                    check()
                    row[way] = answer(asked)
                    progress.advance(bar)
                rows.append(row)
    return summary(rows) | own


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Ratios of each round: service to sequential, geometric means over questions with their intervals."""
    rounds = list(dict.fromkeys(row["round"] for row in rows))
    return {
        "rows": list(rows),
        "rounds": {name: _round([row for row in rows if row["round"] == name]) for name in rounds},
    }


def markdown(report: Mapping[str, Any]) -> str:
    """Two tables of a report: the ratios, and where the time of the service goes."""
    rounds = report["results"]["rounds"]
    lines = [
        "| | questions | document tokens | to the first token: service | sequential | ratio (95 %) "
        "| whole answer: ratio (95 %) | same answer |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in rounds.items():
        first = found["first_token"]
        lines.append(
            f"| {name} | {found['questions']} | {found['tokens']:.0f} | {first['ours_s'] * 1e3:.0f} ms | "
            f"{first['theirs_s'] * 1e3:.0f} ms | {told(first)} | {told(found['answer'])} | "
            f"{found['same_answers']} |"
        )
    if edge := report["results"].get("edge"):
        lines += ["", edge_bench.markdown(edge)]
    stages = list(dict.fromkeys(stage for found in rounds.values() for stage in found["stages_s"]))
    lines += ["", "| stage, ms | " + " | ".join(rounds) + " |", "|---" * (1 + len(rounds)) + "|"]
    for stage in stages:
        cells = " | ".join(f"{found['stages_s'].get(stage, 0.0) * 1e3:.1f}" for found in rounds.values())
        lines.append(f"| {stage} | {cells} |")
    return "\n".join(lines)


def _round(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    stages = [row["service"]["timings"] for row in rows]
    names = list(dict.fromkeys(name for timings in stages for name in timings))
    return {
        "questions": len(rows),
        "tokens": fmean(row["tokens"] for row in rows),
        "same_answers": sum(row["service"]["text"] == row["sequential"]["text"] for row in rows),
        "stages_s": {name: fmean(timings.get(name, 0.0) for timings in stages) for name in names},
        **{
            mark: ratio_of([(row["service"][f"{mark}_s"], row["sequential"][f"{mark}_s"]) for row in rows])
            for mark in _MARKS
        },
    }


def _serve(bench: LocalBench, api: EdgeApi, asked: Asked) -> dict[str, Any]:
    """An answer of the service; its HTTP call is part of the time to the whole answer, and the stage `http` besides."""
    sample, question = asked
    what: dict[str, Any] = {"kind": str(bench.kind), "max_new_tokens": bench.max_new_tokens}
    what["least_confidence"] = 0.0  # else its first token comes with its last, as in `ops.bench.ways`
    began = time.monotonic()
    if bench.kind is SliceKind.SHARED:
        answer = api.ask(_together(asked), **what)
    else:
        answer = api.ask(question.text, document=sample.id, **what)
    seconds = time.monotonic() - began
    if answer["source"] != "fused":
        raise RuntimeError(f"a question about {sample.id} was not answered with a slice: {answer['reason']}")
    return {
        "text": answer["text"],
        "first_token_s": answer["time_to_first_token_s"],
        "answer_s": seconds,
        "timings": answer["timings"] | {"http": seconds - answer["timings"]["total"]},
    }


def _edge(local: Any, questions: Sequence[str]) -> dict[str, Any]:
    """What the edge's own code costs; nothing where the bundle takes no codes in."""
    if local.receiver.bundle.translate is None:
        return {}
    return edge_bench.measure(local.receiver, local.receiver.model.bare, questions, _EDGE_CODES, _EDGE_TOKENS)


def _alone(bench: LocalBench, local: Any, asked: Asked) -> dict[str, Any]:
    sample, question = asked
    if bench.kind is SliceKind.SHARED:
        sections = [Section(Role.QUESTION, Visibility.SHARED, text=_together(asked))]
    else:
        sections = [
            Section(Role.DOCUMENT, Visibility.CLOUD, text=sample.text),
            Section(Role.QUESTION, Visibility.SHARED, text=question.text),
        ]
    timed: Timed = local.answer(sections, bench.kind, _LIMIT, bench.max_new_tokens)
    return {"text": timed.text, "first_token_s": timed.first_s, "answer_s": timed.total_s}


def _together(asked: Asked) -> str:
    return f"{asked[0].text}\n{asked[1].text}"
