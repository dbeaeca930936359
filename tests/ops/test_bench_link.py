"""`kvwire bench link`: what it asks, and what it makes of the times it got."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from fuser.bundle.bundle import Bundle
from fuser.bundle.plans import BadTable, Interval, PlanRow, PlanTable
from kvwire.plan import Plan
from kvwire.segment import SliceKind
from ops.bench import link
from ops.bench.link import questions
from ops.bench.link_report import crossover, markdown, plot, summarise
from ops.bench.utilisation import markdown as utilisation_table
from ops.bench.ways import ALONE, READ, RELAY, Way, chosen, ways_of
from ops.bench.wide import LAYERS, save_wide_pair
from ops.demo.stage import Cast
from ops.link.shape import Shape

RATES, RTTS = (1.0, 10.0, 100.0), (5.0, 40.0)


def record(way: str, rate: float, rtt: float, first_s: float, **more: Any) -> dict[str, Any]:
    return {
        "way": way,
        "rate_mbit": rate,
        "rtt_ms": rtt,
        "document": "d",
        "number": 0,
        "first_s": first_s,
        "total_s": first_s + 0.5,
        "bytes_up": 300,
        "bytes_down": 1_000,
        "payload_bytes": 900,
        "tokens": 4,
        "right": True,
        "as_wanted": True,
    } | more


def found() -> dict[str, Any]:
    """Text takes 1 s; a slice of a million bytes takes 8 s at 1 Mbit/s, 0.8 at 10, 0.08 at 100; three questions."""
    records = []
    for rtt in RTTS:
        for rate in RATES:
            for spread in (0.9, 1.0, 1.3):
                records += [
                    record(ALONE, rate, rtt, 0.1 * spread),
                    record(RELAY, rate, rtt, 1.0 * spread),
                    record("raw", rate, rtt, 8 / rate * spread, right=spread != 1.3, as_wanted=rate != 1),
                ]
    return summarise(records)


def test_a_cell_has_medians_extremes_and_shares_of_both_baselines() -> None:
    results = found()
    assert len(results["cells"]) == 3 * len(RATES) * len(RTTS) and len(results["records"]) == 54
    (cell,) = (c for c in results["cells"] if (c["way"], c["rate_mbit"], c["rtt_ms"]) == ("raw", 10.0, 40.0))
    assert cell["questions"] == 3 and cell["right"] == 2 and cell["as_wanted"] == 3
    assert cell["first_s"] == pytest.approx({"median": 0.8, "min": 0.72, "max": 1.04})
    assert cell["first_s_of_text"] == pytest.approx(0.8) and cell["first_s_of_alone"] == pytest.approx(8.0)
    assert cell["total_s_of_text"] == pytest.approx(1.3 / 1.5, abs=1e-3)
    assert json.loads(json.dumps(results)) == results


def test_a_way_overtakes_text_between_the_rates_around_it() -> None:
    firsts = [one for one in found()["crossovers"] if one["metric"] == "first_s"]
    assert [(one["way"], one["rtt_ms"]) for one in firsts] == [("raw", 5.0), ("raw", 40.0)]
    assert all(one["faster"] == "from" and one["rate_mbit"] == pytest.approx(8.0, rel=1e-3) for one in firsts)


@pytest.mark.parametrize(
    ("ratios", "says"),
    [
        ({1: 0.5, 10: 0.4}, ("always", None)),
        ({1: 1.5, 10: 1.1}, ("never", None)),
        ({1: 4.0, 100: 0.25}, ("from", 10.0)),
        ({1: 0.9, 10: 2.0, 100: 0.5}, ("from", 31.623)),
        ({10: 1.0, 100: 0.5}, ("from", 10.0)),
    ],
)
def test_the_last_crossing_counts(ratios: dict[float, float], says: tuple[str, float | None]) -> None:
    one = crossover(ratios)
    assert (one["faster"], one["rate_mbit"]) == says


def test_the_table_names_every_way_rate_and_slice_that_did_not_come() -> None:
    text = markdown({"results": found()})
    assert text.count("| way | bytes down | right | 1 Mbit/s | 10 Mbit/s | 100 Mbit/s |") == 4
    assert "| raw (3 without a slice) | 1000 | 2/3 | 8.000 (8.00) | 0.800 (0.80) | 0.080 (0.08) |" in text
    assert "| way | time to the first token, 5 ms | time to the full answer, 5 ms |" in text
    assert "| raw | from 8 Mbit/s | from 8" in text


def test_without_text_there_is_no_share_of_it_and_no_crossing() -> None:
    records = [record("raw", 1.0, 5.0, 2.0), record(ALONE, 1.0, 5.0, 1.0)]
    results = summarise(records)
    assert results["crossovers"] == []
    assert "| raw | 1000 | 1/1 | 2.000 |" in markdown({"results": results})


@pytest.mark.parametrize("rtts", [(5.0,), RTTS])
def test_a_picture_is_drawn_from_the_report_alone(tmp_path: Path, rtts: tuple[float, ...]) -> None:
    pytest.importorskip("matplotlib")
    results = json.loads(json.dumps(found()))
    results["cells"] = [cell for cell in results["cells"] if cell["rtt_ms"] in rtts]
    plot({"results": results}, tmp_path / "link.svg")
    drawn = (tmp_path / "link.svg").read_text()
    assert drawn.startswith("<?xml") and len(drawn) > 10_000


def test_the_ways_are_all_that_a_bundle_has(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    ways = ways_of(tiny_bundle, bundle)
    assert [way.name for way in ways] == [ALONE, RELAY, READ, "raw", "lossless", "int8", "int4", "draft"]
    assert all(way.kind is SliceKind.EXCERPT for way in ways[3:7])
    assert ways[7] == Way("draft", Plan(codec="int8"), SliceKind.DRAFT)
    one = Interval(0.5, 0.4, 0.6)
    row = PlanRow(
        Plan(codec="int8", positions=4), SliceKind.EXCERPT, 9.0, 10, 12, one, one, one, None, None, 7
    )
    PlanTable(bundle.hash, (row,), {}).save(tmp_path)
    assert ways_of(tmp_path, bundle)[8:] == (Way("excerpt: int8:m4", row.plan, SliceKind.EXCERPT),)
    PlanTable("0" * 64, (row,), {}).save(tmp_path)
    with pytest.raises(BadTable, match="profile it again"):
        ways_of(tmp_path, bundle)


def test_ways_are_chosen_by_name_in_the_order_given() -> None:
    ways = (Way(ALONE), Way(RELAY), Way("raw", Plan(codec="raw"), SliceKind.EXCERPT))
    assert chosen(ways, None) == ways
    assert chosen(ways, ["raw", ALONE, "raw"]) == (ways[2], ways[0])
    with pytest.raises(ValueError, match="'zstd'; there are: receiver-only; text relay; raw"):
        chosen(ways, ["raw", "zstd"])


def test_questions_go_round_the_documents() -> None:
    asked = questions(13)
    names = [sample.id for sample, _ in asked]
    assert len(set(names[:11])) == 11 and names[11:] == names[:2]
    assert asked[0][1] != asked[11][1]
    assert all(question in sample.questions for sample, question in asked)
    assert len(questions(10_000)) == 24


def test_neither_relay_nor_slice_finds_its_document_read_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: dict[str, Any] = {}

    def stage(*_: Any, **settings: Any) -> None:
        given.update(settings)
        raise InterruptedError

    monkeypatch.setattr(link, "DemoStage", stage)
    bench = link.LinkBench(Cast("s", "r", tmp_path, "raw"), (), (Shape(down_mbit=1, up_mbit=1),), 1)
    with pytest.raises(InterruptedError):
        link.measure(bench, tmp_path, Progress())
    assert given["sharer"] == {"prefix_cache_bytes": 0, "prefix_store": ""}


def test_a_wide_pair_sends_every_layer(tiny_sharer: Path, tmp_path: Path) -> None:
    model, directory = save_wide_pair(tmp_path, tiny_sharer)
    bundle = Bundle.load(directory)
    assert bundle.kinds == {SliceKind.SHARED}
    assert len(bundle.require_fuse().needed()) == 2 * LAYERS
    assert bundle.config.sharer == bundle.config.receiver
    assert (model / "tokenizer.json").is_file()


def test_the_share_of_the_link_is_told_a_line_a_link() -> None:
    share = {"median": 0.9, "min": 0.8, "max": 0.95}
    one = {"rate_mbit": 10.0, "rtt_ms": 40.0, "payload_bytes": 7_500_000, "share_first": 0.7, "share": share}
    assert "| 10 Mbit/s, 40 ms | 0.700 | 0.900 (0.800 - 0.950) | 7.5 |" in utilisation_table([one])
