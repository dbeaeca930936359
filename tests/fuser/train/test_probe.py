"""What a closed form can carry across."""

from pathlib import Path

import pytest
import torch
from rich.progress import Progress

from fuser.train.document import DocumentTask
from fuser.train.probe import probe
from fuser.train.probe_report import draw, markdown
from fuser.train.regress import explained_variance
from fuser.train.setting import Setting
from fuser.train.sources import AnyItem
from tests.fuser.train.tiny_setting import tiny_setting

SHAPE = {"code_dim": 24}


@pytest.fixture
def plain(tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, items: tuple[AnyItem, ...]) -> Setting:
    return tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, {"translate": SHAPE})


def test_a_probe_finds_what_a_run_of_that_shape_starts_with(plain: Setting) -> None:
    with Progress(disable=True) as progress:
        DocumentTask(plain).start(progress)
        found = probe(plain, [100, plain.config.regression_positions], [4, 24], [1, 2], progress)["probes"]
    head = plain.heads["translate"]
    explained = explained_variance(head, plain.cache, plain.validation.documents, plain.reading)  # type: ignore[arg-type]
    (same,) = (p for p in found if p["code_dim"] == 24 and p["maps"] == "joint" and p["positions"] > 200)
    assert same["key_layers"] == pytest.approx(explained[:, 0].tolist(), abs=1e-3)
    assert same["value"] == pytest.approx(float(explained[:, 1].mean()), abs=1e-3)
    assert same["numbers"] == sum(p.numel() for p in head.parameters())


def test_a_probe_tells_of_every_code_and_every_layer(plain: Setting, tmp_path: Path) -> None:
    theirs = plain.bundle.sharer_geometry
    with Progress(disable=True) as progress:
        report = probe(plain, [400], [2, 8, 24], [1, 4], progress)
    found = report["probes"]
    joint = [p for p in found if p["maps"] == "joint" and p["sharer_layer"] is None]
    assert [p["code_dim"] for p in joint] == [2, 8, 24]
    assert len({p["key"] for p in joint}) == 3
    alone = [p for p in found if p["sharer_layer"] is not None]
    assert [p["sharer_layer"] for p in alone] == list(range(theirs.layers))
    assert all(p["code_dim"] == 2 * theirs.layer_width for p in alone)
    text = markdown(report)
    assert f"| per layer, from 4 | {joint[0]['positions']:,} | 24 |" in text
    draw(report, tmp_path / "probe.png")
    assert (tmp_path / "probe.png").stat().st_size > 1000


def test_a_single_layer_is_read_as_a_head_that_reads_it_alone(
    plain: Setting, tiny_sharer: Path, tiny_receiver: Path, tmp_path: Path, items: tuple[AnyItem, ...]
) -> None:
    with Progress(disable=True) as progress:
        found = probe(plain, [plain.config.regression_positions], [8], [], progress)["probes"]
        (third,) = (p for p in found if p["sharer_layer"] == 2)
        shape = {"code_dim": third["code_dim"], "sharer_layers": [2]}
        alone = tiny_setting(tiny_sharer, tiny_receiver, tmp_path, items, {"translate": shape})
        DocumentTask(alone).start(progress)
    head = alone.heads["translate"]
    explained = explained_variance(head, alone.cache, alone.validation.documents, alone.reading)  # type: ignore[arg-type]
    assert torch.allclose(torch.tensor(third["value_layers"]), explained[:, 1], atol=1e-3)


@pytest.mark.parametrize(("positions", "code_dims"), [([], [4]), ([0], [4]), ([100], [])])
def test_a_probe_of_nothing_is_refused(positions: list[int], code_dims: list[int], plain: Setting) -> None:
    with Progress(disable=True) as progress, pytest.raises(ValueError, match="start at 1"):
        probe(plain, positions, code_dims, [1], progress)
