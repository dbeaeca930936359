"""Small valid objects that the tests of the wire start from."""

from collections.abc import Iterable

import torch

from kvwire.codec import Basis, CodecRegistry, Transform
from kvwire.codec.base import DTYPES
from kvwire.identity import ModelRef
from kvwire.limits import MIB, Limits
from kvwire.messages import BundleRef, Description, ShareRequest
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SegmentKind, SegmentSpec, SliceHeader, SliceKind, SliceTrailer
from kvwire.slice_io import Frame, PayloadStream, SliceWriter, length_bytes
from kvwire.v1 import sharer_pb2 as pb

SHARER = ModelRef("qwen", "a" * 64)
RECEIVER = ModelRef("smol", "b" * 64)
BUNDLE_HASH = "c" * 64
REQUEST_ID = bytes(range(16))
VERSIONS = (bytes(range(16, 32)).hex(),)
CODECS = CodecRegistry()
SMALL_FRAMES = Limits(max_frame_bytes=64)


def spec_of(kind: SegmentKind = SegmentKind.KEY, positions: int = 3, dtype: str = "float32") -> SegmentSpec:
    """A segment of two heads of four, or a code of eight."""
    if kind.is_code:
        return SegmentSpec(0, kind, -1 if kind is SegmentKind.CODE else 5, (positions, 8), dtype)
    return SegmentSpec(0, kind, 5, (2, positions, 4), dtype)


def tensor_of(spec: SegmentSpec, seed: int = 0) -> torch.Tensor:
    """Normal numbers of the spec's shape and dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(spec.shape, generator=generator).to(DTYPES[spec.dtype])


def basis_of(width: int, seed: int = 0) -> Basis:
    """Components that stand upright on each other (Walsh-Hadamard), each varying half as much as the one before."""
    turned = torch.ones(1, 1, dtype=torch.float64)
    while len(turned) < width:
        turned = torch.cat((torch.cat((turned, turned), 1), torch.cat((turned, -turned), 1)))
    spread = 2.0 ** -torch.arange(width).float()
    return Basis((torch.arange(width) - seed) / 16, (turned / width**0.5).half(), spread)


def transform_of(rate: float = 2.0) -> Transform:
    """A codec with a basis for every segment of `spec_of`, and for the first half of a code."""
    layers = [(kind, -1 if kind is SegmentKind.CODE else 5, 8) for kind in SegmentKind]
    bases = {place: basis_of(place[2], seed) for seed, place in enumerate(layers)}
    bases[SegmentKind.CODE, -1, 4] = basis_of(4, 6)
    return Transform(rate, bases, dict.fromkeys(bases, rate))


def header_of(codec: str = "raw", positions: int = 3, layers: int = 2) -> SliceHeader:
    """A shared slice: keys and values of some layers; the last position is a template's."""
    shape = (2, positions, 4)
    specs = [
        SegmentSpec(2 * layer + i, kind, layer, shape, "float32")
        for layer in range(layers)
        for i, kind in enumerate((SegmentKind.KEY, SegmentKind.VALUE))
    ]
    spans = tuple((0, i, i + 1) for i in range(max(0, positions - 1)))
    return SliceHeader(
        request_digest=request_of(codec=codec).digest(),
        kind=SliceKind.SHARED,
        specs=tuple(specs),
        spans=spans,
        tail=min(1, positions),
        versions=VERSIONS,
    )


def excerpt_header(codec: str = "raw", positions: int = 12) -> SliceHeader:
    """An excerpt: one code."""
    code = spec_of(SegmentKind.CODE, positions)
    digest = request_of(SliceKind.EXCERPT, codec).digest()
    return SliceHeader(digest, SliceKind.EXCERPT, (code,), versions=VERSIONS)


def request_of(kind: SliceKind = SliceKind.SHARED, codec: str = "raw") -> ShareRequest:
    """A question on a document of the cloud."""
    sections = (
        Section(Role.QUESTION, Visibility.SHARED, text="Who signed it?"),
        Section(Role.DOCUMENT, Visibility.CLOUD, document_id="note-1"),
    )
    return ShareRequest(
        request_id=REQUEST_ID,
        sharer=SHARER,
        bundle_hash=BUNDLE_HASH,
        codec_hash=CODECS.get(codec).parameters_hash,
        kind=kind,
        plan=Plan(codec=codec, positions=0 if kind is SliceKind.SHARED else 12),
        sections=sections,
    )


FULL_PLAN = Plan(codec="raw", layers=(0, 5), last=9, bottleneck=True, padded=True)
"""Every dial of a shared slice turned."""


def description_of() -> Description:
    """A cloud that offers one bundle and every codec."""
    bundle = BundleRef(BUNDLE_HASH, RECEIVER, (SliceKind.SHARED, SliceKind.EXCERPT))
    return Description(sharer=SHARER, bundles=(bundle,), codecs=CODECS.refs())


def written(
    header: SliceHeader, codec: str = "raw", limits: Limits = SMALL_FRAMES
) -> tuple[list[Frame], SliceTrailer]:
    """All frames of a slice and its summary."""
    writer = SliceWriter(header, CODECS.get(codec), limits)
    frames = [f for i, spec in enumerate(header.specs) for f in writer.write(spec, tensor_of(spec, i))]
    return frames, writer.trailer({"queue": 0.0, "prefill": 1.5, "encode": 0.25})


def with_length(payload: bytes) -> bytes:
    """A payload as it stands in a stream."""
    return length_bytes(len(payload)) + payload


def payload_bytes_of(messages: Iterable[bytes]) -> int:
    """Bytes of the whole payloads among serialised ShareResponses, of any number of slices."""
    stream, total = PayloadStream(()), 0
    for message in messages:
        part = pb.ShareResponse.FromString(message)
        if part.HasField("header"):
            stream = PayloadStream([MIB] * sum(len(run.kinds) for run in part.header.segments))
        elif part.HasField("frame"):
            total += sum(map(len, stream.add(part.frame.data)))
    return total
