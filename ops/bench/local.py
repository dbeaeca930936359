"""`kvwire bench local`: the answer of the service beside the same models one after the other in one process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from rich.progress import Progress

from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from ops.bench import edge as edge_bench
from ops.bench.ratio import ratio_of, told
from ops.demo.edge_api import EdgeApi
from ops.demo.samples import DemoQuestion, DemoSample, load_samples
from ops.demo.stage import CLOUD_START_S, EDGE_START_S, Cast, DemoStage

if TYPE_CHECKING:
    from ops.bench.sequential import Timed

Asked = tuple[DemoSample, DemoQuestion]

FIRST: Final = "first question"
NEXT: Final = "next question"
"""Over the same document: the cloud has its prefix, the process of the baseline reads it again."""
_LIMIT: Final = 16  # as many as the demo's cloud lets out
_CODES: Final = 8
_TOKENS: Final = 32
_MARKS: Final = ("first_token", "answer")


@dataclass(frozen=True, slots=True)
class LocalBench:
    """What to measure: a number of documents, with one question each, and one more where there is one."""

    cast: Cast
    kind: SliceKind
    documents: int
    max_new_tokens: int = 24

    @property
    def asked(self) -> list[tuple[str, Asked]]:
        """Rounds of questions. Shared prompts have no document that could be read before."""
        samples = load_samples()[:-1][: self.documents]  # the last one warms up
        rounds = [(FIRST, (s, s.questions[0])) for s in samples]
        if self.kind is not SliceKind.SHARED:
            rounds += [(NEXT, (s, s.questions[1])) for s in samples if len(s.questions) > 1]
        return rounds


def measure(
    bench: LocalBench, folder: Path, progress: Progress, check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Both nodes as processes of their own, and both models in this one, in turns; same dtype, same threads.

    Raises:
        NodeFailed, AskFailed: a node did not start, or refused a question.
    """
    from ops.bench.sequential import Sequential

    threads = min(os.cpu_count() or 1, 8)  # as `DemoStage` gives the cloud; torch takes as many at the edge
    bar = progress.add_task("loading both models", total=2 * len(bench.asked) + 3)
    cast = bench.cast
    local = Sequential(cast.sharer, cast.receiver, cast.bundle, threads, cast.device, cast.dtype)
    progress.update(bar, advance=1, description="the edge alone")
    own = {"edge": _edge(local, [asked[1].text for _, asked in bench.asked])}
    kept = {"prefix_store": ""}  # or a first question would find its document read
    with DemoStage(folder, bench.cast, load_samples(), record=False, sharer=kept) as stage:
        progress.update(bar, description="starting both nodes")
        api = EdgeApi(stage.edge.address(EDGE_START_S, check))
        stage.cloud.address(CLOUD_START_S, check)
        progress.advance(bar)
        warm = load_samples()[-1]
        _serve(bench, api, (warm, warm.questions[0]))  # connections, kernels and pages are there
        _alone(bench, local, (warm, warm.questions[0]))
        progress.update(bar, advance=1, description="asking")
        rows = []
        for number, (round_, asked) in enumerate(bench.asked):
            found: dict[str, Any] = {}
            for way in ("service", "sequential") if number % 2 else ("sequential", "service"):
                check()
                found[way] = _serve(bench, api, asked) if way == "service" else _alone(bench, local, asked)
                progress.advance(bar)
            rows.append({"round": round_, "document": asked[0].id} | found)
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
        "| | questions | to the first token: service | sequential | ratio (95 %) | whole answer: ratio (95 %) "
        "| same answer |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in rounds.items():
        first = found["first_token"]
        lines.append(
            f"| {name} | {found['questions']} | {first['ours_s'] * 1e3:.0f} ms | "
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
    return edge_bench.measure(local.receiver, local.receiver.model.bare, questions, _CODES, _TOKENS)


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
