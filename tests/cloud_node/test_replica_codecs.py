"""One cloud, two bundles that bring codecs of one name and other bases: each slice is told in its own."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from cloud_node.call import ShareCall
from cloud_node.config import CloudConfig
from cloud_node.replica import Replica
from fuser.bundle.bundle import Bundle
from fuser.bundle.config import CodecBasesConfig
from fuser.lab.scatter import Scatter
from kvwire.codec import CodecRegistry
from kvwire.errors import IncompatiblePeer
from kvwire.limits import Limits
from kvwire.messages import check_request
from kvwire.plan import Plan
from kvwire.segment import Segment, SliceKind
from kvwire.slice_io import SliceAssembler, most_bytes, payload_codec
from tests.cloud_fixture import request_for

QUESTION = "Who keeps the spare key?"
PLANS = (
    (SliceKind.SHARED, Plan(codec="transform-8")),
    (SliceKind.SHARED, Plan(codec="transform-8", bottleneck=True, padded=True)),
    (SliceKind.EXCERPT, Plan(codec="transform-8", positions=12)),
    (SliceKind.EXCERPT, Plan(codec="transform-8", positions=12, code_dim=7, padded=True)),
)


def with_bases(directory: Path, to: Path, seed: int) -> Bundle:
    """The bundle, calibrated on numbers that are drawn."""
    bundle = Bundle.load(directory)
    assert bundle.fuse is not None
    layers = tuple(range(bundle.config.sharer_geometry.layers))
    halves = {"key_code": bundle.fuse.fed, "value_code": bundle.fuse.fed}
    found = bundle.with_codec_bases(
        CodecBasesConfig((8.0,), {"key": layers, "value": layers} | halves, (7, 24))
    )
    assert found.codec_bases is not None
    generator, bases = torch.Generator().manual_seed(seed), {}
    for place in found.codec_bases.places:
        scatter = Scatter.empty(place[2])
        scatter.add(6 * torch.randn(200, place[2], generator=generator))
        bases[place] = scatter.basis(place[2])
    found.codec_bases.write(bases, torch.full((1, len(bases)), 8.0))
    found.save(to)
    return Bundle.load(to)


@pytest.fixture
def bundles(tiny_bundle: Path, tmp_path: Path) -> list[Bundle]:
    return [with_bases(tiny_bundle, tmp_path / str(seed), seed) for seed in (1, 2)]


@pytest.fixture
def replica(config: CloudConfig, bundles: list[Bundle], tmp_path: Path) -> Replica:
    sharer = dataclasses.replace(config.sharer, bundles=(str(tmp_path / "1"), str(tmp_path / "2")))
    return Replica.load(dataclasses.replace(config, sharer=sharer))


async def segments_of(replica: Replica, bundle: Bundle, kind: SliceKind, plan: Plan) -> list[Segment]:
    """Asked for and taken in as the edge with this bundle does."""
    inner = CodecRegistry(bundle.codecs()).get(plan.codec)
    own: dict[str, Any] = {"bundle_hash": bundle.hash, "codec_hash": inner.parameters_hash, "kind": kind}
    request = request_for(replica.describe(), "note-1", QUESTION, plan=plan, **own)
    check_request(request, replica.describe())
    parts = [p async for batch in replica.share(ShareCall("acme", request, 32), 30.0) for p in batch]
    header, *frames, summary = parts
    codec = payload_codec(plan, inner)
    assembler = SliceAssembler(header, codec, Limits())  # type: ignore[arg-type]
    segments = [segment for frame in frames for segment in assembler.add(frame)]  # type: ignore[arg-type]
    assembler.finish(summary)  # type: ignore[arg-type]
    most = most_bytes(header.specs, codec)  # type: ignore[union-attr]
    assert assembler.payload_bytes <= most
    assert not plan.padded or assembler.payload_bytes == most
    return segments


@pytest.mark.parametrize(("kind", "plan"), PLANS)
async def test_each_bundle_has_its_own_bases(
    replica: Replica, bundles: list[Bundle], kind: SliceKind, plan: Plan
) -> None:
    told = [await segments_of(replica, bundle, kind, plan) for bundle in bundles]
    exact = await segments_of(
        replica, bundles[0], kind, dataclasses.replace(plan, codec="lossless", padded=False)
    )
    for segments in told:
        assert [segment.spec for segment in segments] == [segment.spec for segment in exact]
        for one, true in zip(segments, exact, strict=True):
            error = (one.tensor - true.tensor).float().square().mean()
            assert error < 0.01 * true.tensor.float().square().mean()
    assert any(not torch.equal(a.tensor, b.tensor) for a, b in zip(*told, strict=True))


async def test_an_edge_with_other_bases_is_refused(replica: Replica, bundles: list[Bundle]) -> None:
    other = bundles[1].codecs()[0].parameters_hash
    own: dict[str, Any] = {"bundle_hash": bundles[0].hash, "codec_hash": other}
    request = request_for(replica.describe(), "note-1", QUESTION, plan=PLANS[2][1], **own)
    with pytest.raises(IncompatiblePeer, match="transform-8"):
        check_request(request, replica.describe())
