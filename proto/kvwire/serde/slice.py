"""What a slice is made of: header, frames, summary."""

from collections.abc import Sequence

from kvwire.errors import BadHeader
from kvwire.frame import Frame
from kvwire.limits import Limits
from kvwire.segment import REQUEST_DIGEST_BYTES, SegmentSpec, SliceHeader, SliceSummary
from kvwire.serde.fields import (
    ELEMENT,
    SEGMENT_KIND,
    SLICE_KIND,
    at_most,
    exactly,
    key_of,
    timings_from_proto,
    timings_to_proto,
)
from kvwire.v1 import sharer_pb2 as pb

DIGEST_BYTES = 16


def slice_header_to_proto(header: SliceHeader) -> pb.SliceHeader:
    return pb.SliceHeader(
        request_digest=header.request_digest,
        kind=SLICE_KIND[header.kind],
        segments=segment_specs_to_proto(header.specs),
        spans=[pb.Span(section=section, start=start, end=end) for section, start, end in header.spans],
        tail=header.tail,
    )


def slice_header_from_proto(message: pb.SliceHeader, limits: Limits) -> SliceHeader:
    """Raises BadHeader or TooLarge. Compare with the request next (`check_header`)."""
    at_most("segments", len(message.segments), limits.max_segments)
    at_most("positions", len(message.spans) + message.tail, limits.max_positions)
    header = SliceHeader(
        request_digest=exactly("request digest", message.request_digest, REQUEST_DIGEST_BYTES),
        kind=key_of("slice kind", SLICE_KIND, message.kind),
        specs=segment_specs_from_proto(message.segments),
        spans=tuple((span.section, span.start, span.end) for span in message.spans),
        tail=message.tail,
    )
    limits.check_slice(header)
    return header


def segment_specs_to_proto(specs: Sequence[SegmentSpec]) -> list[pb.SegmentSpec]:
    """Shape and element type are said where they change."""
    messages = []
    before: SegmentSpec | None = None
    for spec in specs:
        message = pb.SegmentSpec(kind=SEGMENT_KIND[spec.kind], layer=spec.layer)
        if before is None or spec.shape != before.shape:
            message.shape.extend(spec.shape)
        if before is None or spec.dtype != before.dtype:
            message.element_type = ELEMENT[spec.dtype]
        messages.append(message)
        before = spec
    return messages


def segment_specs_from_proto(messages: Sequence[pb.SegmentSpec]) -> tuple[SegmentSpec, ...]:
    """Raises BadHeader."""
    specs: list[SegmentSpec] = []
    for place, message in enumerate(messages):
        kind = key_of("segment kind", SEGMENT_KIND, message.kind)
        shape = specs[-1].shape if specs and not message.shape else tuple(message.shape[:4])
        repeats = specs and not message.element_type
        dtype = specs[-1].dtype if repeats else key_of("element type", ELEMENT, message.element_type)
        specs.append(SegmentSpec(place, kind, message.layer, shape, dtype))
    return tuple(specs)


def frame_to_proto(frame: Frame) -> pb.Frame:
    return pb.Frame(
        sequence=frame.sequence,
        segment_id=frame.segment_id,
        offset=frame.offset,
        total=frame.total,
        data=frame.data,
        checksum=frame.checksum,
    )


def frame_from_proto(message: pb.Frame, limits: Limits) -> Frame:
    """Raises TooLarge. The checksum is the assembler's to check."""
    at_most("frame bytes", len(message.data), limits.max_frame_bytes)
    return Frame(
        message.sequence, message.segment_id, message.offset, message.total, message.data, message.checksum
    )


def slice_summary_to_proto(summary: SliceSummary) -> pb.SliceSummary:
    return pb.SliceSummary(
        digest=summary.digest,
        frames=summary.frames,
        payload_bytes=summary.payload_bytes,
        positions=summary.positions,
        timings=timings_to_proto(summary.timings),
    )


def slice_summary_from_proto(message: pb.SliceSummary) -> SliceSummary:
    """Raises BadHeader."""
    return SliceSummary(
        exactly("digest", message.digest, DIGEST_BYTES),
        message.frames,
        message.payload_bytes,
        message.positions,
        timings_from_proto(message.timings),
    )


def share_response_to_proto(part: SliceHeader | Frame | SliceSummary) -> pb.ShareResponse:
    if isinstance(part, SliceHeader):
        return pb.ShareResponse(header=slice_header_to_proto(part))
    if isinstance(part, Frame):
        return pb.ShareResponse(frame=frame_to_proto(part))
    return pb.ShareResponse(summary=slice_summary_to_proto(part))


def share_response_from_proto(
    message: pb.ShareResponse, limits: Limits
) -> SliceHeader | Frame | SliceSummary:
    """Raises BadHeader or TooLarge."""
    part = message.WhichOneof("part")
    if part == "header":
        return slice_header_from_proto(message.header, limits)
    if part == "frame":
        return frame_from_proto(message.frame, limits)
    if part == "summary":
        return slice_summary_from_proto(message.summary)
    raise BadHeader("an empty part of a slice")
