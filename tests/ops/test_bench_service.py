"""The benches of the service: what they compare, and what they make of their numbers."""

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cloud_node.config import CloudConfig
from cloud_node.documents import Documents
from fuser.lab.leakage import observed
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from ops.bench import cloud as cloud_bench
from ops.bench import edge as edge_bench
from ops.bench import local as local_bench
from ops.bench import prefixes as prefix_bench
from ops.bench import replies as reply_bench
from ops.bench.sequential import Sequential
from ops.chaos.in_one_process import answer_in_one_process, first_line
from ops.demo.samples import DemoQuestion, DemoSample, load_samples
from ops.demo.stage import Cast
from ops.output import counting_progress
from tests.cloud_fixture import DOCUMENTS, CloudNode

if TYPE_CHECKING:
    from edge_node import EdgeConfig

QUESTION = Section(Role.QUESTION, Visibility.SHARED, text="Who keeps the spare key of the boat house?")
DOCUMENT = Section(Role.DOCUMENT, Visibility.CLOUD, text="The key lies under the third stone. " * 3)


@pytest.fixture(scope="module")
def sequential(tiny_sharer: Path, tiny_receiver: Path, tiny_bundle: Path) -> Sequential:
    return Sequential(str(tiny_sharer), str(tiny_receiver), tiny_bundle, threads=1)


def test_one_process_gives_the_answer_of_the_services_own_code(sequential: Sequential) -> None:
    timed = sequential.answer([QUESTION], SliceKind.SHARED, 0, 8)
    local = answer_in_one_process(
        sequential.sharer, sequential.receiver, [QUESTION], {}, SliceKind.SHARED, 0, 8
    )
    assert timed.text == first_line(local.text)
    assert 0 < timed.first_s <= timed.total_s


@pytest.mark.parametrize("kind", [SliceKind.SHARED, SliceKind.EXCERPT])
def test_one_process_computes_both_models_whole(sequential: Sequential, kind: SliceKind) -> None:
    rows: dict[str, list[int]] = {"sharer": [], "receiver": [], "last": []}
    sharer, receiver = sequential.sharer.model, sequential.receiver.model
    hooks = [
        model.lm_head.register_forward_hook(lambda _, x, __, name=name: rows[name].append(x[0].shape[1]))
        for name, model in (("sharer", sharer), ("receiver", receiver))
    ]
    last = sharer.get_decoder().layers[-1].mlp
    hooks.append(last.register_forward_hook(lambda _, x, __: rows["last"].append(x[0].shape[1])))
    sections = [QUESTION] if kind is SliceKind.SHARED else [DOCUMENT, QUESTION]
    sequential.answer(sections, kind, 8, 2)
    for hook in hooks:
        hook.remove()
    tokens = len(sequential.sharer.layout(sections, kind, 8).prompt)
    assert rows["sharer"] == rows["last"] == [tokens]
    assert rows["receiver"][0] > 1


def answer(first: float, whole: float, text: str = "red") -> dict[str, Any]:
    return {"text": text, "first_token_s": first, "answer_s": whole, "timings": {"wait": first / 2}}


def test_an_answers_time_stands_beside_that_of_one_process() -> None:
    alone, not_read = answer(0.2, 0.4), local_bench.NOT_READ
    rows = [
        {"round": not_read, "tokens": 490, "service": answer(0.1, 0.3), "sequential": alone},
        {
            "round": not_read,
            "tokens": 500,
            "service": answer(0.4, 0.6),
            "sequential": answer(0.2, 0.4, "blue"),
        },
        {"round": local_bench.READ, "tokens": 490, "service": answer(0.15, 0.3), "sequential": alone},
        {"round": local_bench.NEXT, "tokens": 500, "service": answer(0.1, 0.2), "sequential": alone},
    ]
    results = local_bench.summary(rows)
    first = results["rounds"][not_read]
    assert first["first_token"]["ratio"] == pytest.approx(1.0)  # one half and twice
    assert first["first_token"]["low"] <= 1.0 <= first["first_token"]["high"]
    assert first["same_answers"] == 1 and first["questions"] == 2
    assert results["rounds"][local_bench.NEXT]["answer"]["ratio"] == pytest.approx(0.5)
    assert first["stages_s"]["wait"] == pytest.approx(0.125)
    table = local_bench.markdown({"results": results})
    assert f"| {not_read} | 2 | 495 | 250 ms | 200 ms | 1.00 (" in table
    assert (
        f"| {local_bench.READ} | 1 | 490 | 150 ms | 200 ms | 0.75 (0.75-0.75) | 0.75 (0.75-0.75) | 1 |"
        in table
    )
    assert "| next question | 1 | 500 | 100 ms | 200 ms | 0.50 (0.50-0.50) | 0.50 (0.50-0.50) | 1 |" in table
    assert "| wait | 125.0 | 75.0 | 50.0 |" in table


def test_questions_about_documents_are_asked_in_three_rounds_of_two_starts() -> None:
    samples = load_samples()[:2]
    for kind in SliceKind:
        starts = local_bench.LocalBench(Cast("s", "r", Path(), "raw"), kind, 2).starts(samples)
        rounds = [[round_ for round_, _ in start] for start in starts]
        assert rounds[0] == [local_bench.NOT_READ] * 2
        if kind is SliceKind.SHARED:
            assert len(rounds) == 1
        else:
            assert rounds[1:] == [[local_bench.READ] * 2 + [local_bench.NEXT] * 2]
            assert [asked for _, asked in starts[1]] == [(s, s.questions[n]) for n in (0, 1) for s in samples]


def test_what_the_edges_code_costs_stands_beside_transformers_and_a_prefill(sequential: Sequential) -> None:
    model = sequential.receiver.model.bare
    found = edge_bench.measure(
        sequential.receiver, model, ["Who keeps the key?", "Where?"], positions=2, tokens=3
    )
    for ratio in (found["generation"], found["at_once"], found["intake"]):
        assert 0 < ratio["low"] <= ratio["ratio"] <= ratio["high"] and ratio["ours_s"] > 0 < ratio["theirs_s"]
    assert "| 3 tokens, beside `transformers.generate` |" in edge_bench.markdown(found)


def test_the_clouds_rate_stands_beside_a_bare_prefill_of_its_own_round() -> None:
    calls = [cloud_bench.Call(0.5, 0.09, 0.4), cloud_bench.Call(0.7, 0.18, 0.5)] * 2
    rounds = [
        cloud_bench.Round(streams, slow * 2.0 / streams, slow * 0.4, calls)
        for slow in (1.0, 3.0)  # the machine, of both
        for streams in (1, 2)
    ]
    results = cloud_bench.summary(rounds, {1: 0.5, 4: 0.4}, [100] * 4)
    assert results["bare"]["batch"] == 4 and results["bare"]["tokens_per_s"] == pytest.approx(500)
    for row, ratio in zip(results["rows"], (0.2, 0.4), strict=True):
        assert [row[name] for name in ("ratio", "low", "high")] == pytest.approx([ratio] * 3)
        assert row["requests"] == 8 and row["waited_ms"]["p50"] == pytest.approx(135)
        assert row["overhead_ms"]["p50"] == pytest.approx(15)
        assert row["overhead_ms"]["p99"] == pytest.approx(20, rel=0.01)
    assert "| 2 | 2.00 | 200 | 0.40 (0.40-0.40) |" in cloud_bench.markdown({"results": results})


@pytest.fixture
def edge(cloud: CloudNode, tiny_receiver: Path, tiny_bundle: Path) -> "EdgeConfig":
    from tests.edge_node.toml import edge_of

    return edge_of(cloud.certificates, cloud.address, tiny_receiver, tiny_bundle, tokens=64)


@pytest.mark.parametrize("kind", list(SliceKind))
def test_callers_side_by_side_are_all_answered(
    edge: "EdgeConfig", sequential: Sequential, kind: SliceKind
) -> None:
    sample = DemoSample("note-1", DOCUMENTS["acme", "note-1"], "", ())
    asked = [(sample, DemoQuestion(f"Who keeps key {number}?", ("x",))) for number in range(6)]
    callers = cloud_bench.Callers(edge, sequential.sharer.bundle, kind, "raw", lambda: None)
    seconds, calls = asyncio.run(callers.all(asked, 3))
    assert len(calls) == 6
    assert all(0 < call.waited_s + call.worked_s < call.seconds <= seconds for call in calls)


def test_a_first_question_is_compared_with_the_next_one_its_document_read_before_and_not(
    tiny_sharer: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    bench = prefix_bench.PrefixBench(
        tiny_sharer, tiny_bundle, SliceKind.EXCERPT, (60, 600), 3, "cpu", "float32"
    )
    with counting_progress() as progress:
        results = prefix_bench.measure(bench, tmp_path, progress)
    assert [row["rounds"] for row in results["rows"]] == [3, 3]
    short, long = results["rows"]
    assert 40 < short["tokens"] < 100 and 500 < long["tokens"] < 650
    assert results["token_bytes"] == 2 * 4 * 2 * 16 * 4
    for row in results["rows"]:
        assert row["disk_bytes"] > row["tokens"] * results["token_bytes"]
        assert set(row["median_s"]) == set(prefix_bench.WAYS)
    table = prefix_bench.markdown({"results": results})
    assert f"| {long['tokens']:,} | 3 |" in table and "1.00 | 1.00 | 1.00" in table
    prefix_bench.plot({"results": results}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1_000


def replies_of(lengths: list[int], told: bool) -> list[dict[str, float]]:
    """Of a cloud whose seconds, and nothing else, tell of a length, or tell nothing."""
    chance = random.Random(2)
    return [
        {
            "document": document,
            "round": number,
            "bytes": 765,
            "positions": 8,
            **dict.fromkeys(("queue_s", "encode_s"), 0.001),
            **dict.fromkeys(
                ("prefill_s", "first_s", "all_s"),
                (length if told else 400) * chance.gauss(1e-4, 1e-6),
            ),
        }
        for number in range(8)
        for document, length in enumerate(lengths)
    ]


def test_seconds_that_tell_a_length_are_found_and_sizes_that_are_all_alike_tell_nothing() -> None:
    lengths = [100 * 2 ** (place // 4) + 10 * place for place in range(12)]
    random.Random(3).shuffle(lengths)
    told = reply_bench.judged(replies_of(lengths, told=True), lengths)["observers"]
    for name in ("seconds", "all that an edge is told"):
        for found in told[name]["attacks"].values():
            assert found["point"] > 0.9 > 0.6 > found["control"]
    for found in told["bytes"]["attacks"].values():
        assert found["low"] <= found["control"] <= found["high"] and found["point"] < 0.6
    silent = reply_bench.judged(replies_of(lengths, told=False), lengths)["observers"]
    for found in silent["both, as the network sees"]["attacks"].values():
        assert abs(found["point"] - found["control"]) < 0.15
    checks = [check for seen in (told, silent) for one in seen.values() for check in one["checks"]]
    assert len(checks) == 16 and all(check["passed"] for check in checks)
    states = {"read before": {"observers": told}}
    table = reply_bench.markdown(
        {"results": {"documents": 12, "rounds": 8, "states": states, "valid": False}}
    )
    assert "| read before | seconds | 100.0 [100.0, 100.0] \\| " in table and "**Void**" in table


def test_sizes_that_are_nearly_alike_are_told_apart_among_many_replies() -> None:
    labels = torch.arange(3).repeat(72)
    sizes = torch.tensor([2066.0, 2067.0, 2069.0]).repeat(72)[:, None]
    assert torch.equal(observed._nearest(sizes, labels, sizes), labels)


def test_a_leak_that_is_not_found_makes_a_run_void(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed, "_STRENGTH", 0.0)
    lengths = list(range(100, 112))
    seen = reply_bench.judged(replies_of(lengths, told=False), lengths)["observers"]["bytes"]
    assert [check["passed"] for check in seen["checks"]] == [False, True]
    for few in (lengths[:5], lengths[:2]):
        with pytest.raises(ValueError, match="too few replies"):
            reply_bench.judged(replies_of(few, told=False), few)


def test_replies_of_a_real_cloud_are_seen_with_their_bytes_and_seconds(
    cloud: CloudNode, edge: "EdgeConfig", sequential: Sequential
) -> None:
    store = Documents(CloudConfig.load(cloud.directory / "cloud.toml").documents)
    texts = tuple(f"Note {number}. " + "The bell rings twice. " * 8 * (number + 1) for number in range(2))
    for number, text in enumerate(texts):
        store.add("acme", f"text-{number}", text)
    store.close()
    cast = Cast("", "", Path(), "raw")
    bench = reply_bench.RepliesBench(cast, SliceKind.EXCERPT, Plan(codec="raw", positions=4), texts, 2)
    done: list[None] = []
    replies = asyncio.run(
        reply_bench._rounds(bench, edge, sequential.sharer.bundle, lambda: done.append(None), lambda: None)
    )
    assert (len(replies), len(done)) == (4, 6)
    for reply in replies:
        assert {name for names in reply_bench.OBSERVERS.values() for name in names} <= reply.keys()
        assert reply["positions"] == 4 and 0 < reply["first_s"] <= reply["all_s"] and reply["bytes"] > 100
