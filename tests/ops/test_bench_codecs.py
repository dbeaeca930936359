"""`kvwire bench codecs` on the tiny pair, of a bundle that is calibrated."""

import json
from pathlib import Path

import pytest
import torch
from rich.progress import Progress
from typer.testing import CliRunner

from fuser.bundle.bundle import Bundle
from fuser.bundle.plans import PlanRow, PlanTable
from fuser.lab.calibrate import calibrated_for
from fuser.lab.train.prepare import fill_cache, prepare, save
from kvwire.codec import CodecRegistry, Int8
from kvwire.plan import Plan
from kvwire.segment import SegmentKind, SegmentSpec, SliceKind
from ops.bench.codecs import WithZstd, markdown, measure
from ops.bench.real_segments import CODES, SOURCE_HALVES, Sample
from ops.cli import app
from tests.fuser.lab.train.test_session import run_config

ZSTD = ("raw + zstd-1", "int8 + zstd-1")


@pytest.fixture(scope="module")
def calibrated(tiny_sharer: Path, tiny_receiver: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle as it is before training, with codecs of 3 bits and of 1 bit a value."""
    folder = tmp_path_factory.mktemp("run")
    config = run_config(folder, tiny_sharer, tiny_receiver, calibrate={"rates": [3, 1]})
    with Progress(disable=True) as progress:
        fill_cache(config, progress)
        setting = prepare(config)
        setting.heads["fuse"].get_parameter("gate_logit").data.fill_(1.0)
        save(setting)
        calibrated_for(Bundle.load(config.output), config, progress).save(folder / "calibrated")
    return folder / "calibrated"


def test_every_rung_is_measured_on_the_segments_of_a_calibrated_bundle(
    calibrated: Path, tiny_sharer: Path
) -> None:
    found = Bundle.load(calibrated)
    assert [codec.name for codec in found.codecs()] == ["transform-3", "transform-1"]
    command = ["bench", "codecs", str(calibrated), "--sharer", str(tiny_sharer), "--limit", "2"]
    done = CliRunner().invoke(app, [*command, "--rounds", "1", "--json", "-"])
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)["results"]
    assert set(results["groups"]) == {"K", "V", CODES, SOURCE_HALVES}
    rungs = {row["rung"] for row in results["rows"] if row["group"] == CODES}
    assert rungs == {*CodecRegistry(found.codecs()).names(), *ZSTD}
    rows = {(row["group"], row["rung"]): row for row in results["rows"]}
    for group in results["groups"]:
        assert rows[group, "raw"]["error"] == 0 < rows[group, "int8"]["error"] < rows[group, "int4"]["error"]
        assert rows[group, "transform-3"]["error"] < rows[group, "transform-1"]["error"] < 1
        assert (
            rows[group, "transform-1"]["bits"]
            < rows[group, "hadamard-2"]["bits"]
            < rows[group, "int4"]["bits"]
        )
        assert all(row["encode_mb_s"] > 0 and row["decode_of_copy"] > 0 for row in results["rows"])


def test_another_sharer_is_refused(calibrated: Path, tiny_receiver: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "codecs", str(calibrated), "--sharer", str(tiny_receiver)])
    assert done.exit_code == 1 and "the bundle is for" in str(done.exception)


def sample(group: str = "K", positions: int = 50) -> Sample:
    spec = SegmentSpec(0, SegmentKind.KEY, 0, (2, positions, 8), "bfloat16")
    tensor = torch.randn(spec.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    return Sample(group, spec, tensor, lambda sent: sent.float().transpose(0, 1).flatten(1))


def row(
    codec: str, kind: SliceKind, against_raw: float, mean_bytes: int, bottleneck: bool = False
) -> PlanRow:
    from fuser.bundle.plans import Interval

    worth = Interval(0.5, 0.4, 0.6)
    lost = Interval(against_raw, against_raw - 0.1, against_raw + 0.2)
    size = (mean_bytes, mean_bytes, mean_bytes)
    return PlanRow(Plan(codec=codec, bottleneck=bottleneck), kind, *size, worth, worth, lost, None, None, 9)


def test_a_profiled_bundle_tells_what_transfer_a_rung_loses() -> None:
    rows = [
        row("int8", SliceKind.SHARED, -0.25, 900),
        row("int8", SliceKind.SHARED, -0.5, 90),
        row("int8", SliceKind.SHARED, -0.75, 950, bottleneck=True),
    ]
    with Progress(disable=True) as progress:
        results = measure([sample()], CodecRegistry(), progress, 1, PlanTable("a" * 64, tuple(rows), {}))
    losses = {one["rung"]: one["transfer_loss"] for one in results["rows"]}
    assert losses["int8"] == {"point": 0.25, "low": pytest.approx(0.05), "high": 0.35}
    assert losses["raw"] is None
    table = markdown({"results": results})
    assert "| 25.0 [5.0, 35.0] |" in table and table.count("| raw |") == 1


def test_a_rung_without_bases_is_left_out_and_a_group_of_nothing_too() -> None:
    from tests.kvwire.samples import transform_of

    empty = sample("V", 0)
    with Progress(disable=True) as progress:
        results = measure([sample(), empty], CodecRegistry([transform_of()]), progress, 1)
    assert set(results["groups"]) == {"K"}
    assert {one["rung"] for one in results["rows"]} == {*CodecRegistry().names(), *ZSTD}


def test_zstd_around_a_codec_gives_the_codecs_numbers() -> None:
    one = sample()
    payload = WithZstd(Int8()).encode(one.tensor, one.spec)
    decoded = Int8().decode(Int8().encode(one.tensor, one.spec), one.spec)
    assert torch.equal(WithZstd(Int8()).decode(payload, one.spec), decoded)
