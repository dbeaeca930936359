"""What a slice is made of: header, frames, trailer."""

from collections.abc import Sequence
from itertools import groupby

from kvwire.errors import BadHeader
from kvwire.limits import Limits
from kvwire.segment import REQUEST_DIGEST_BYTES, SegmentSpec, SliceHeader, SliceTrailer
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
from kvwire.slice_io import Frame
from kvwire.v1 import sharer_pb2 as pb

DIGEST_BYTES = 16


def slice_header_to_proto(header: SliceHeader) -> pb.SliceHeader:
    return pb.SliceHeader(
        request_digest=header.request_digest,
        kind=SLICE_KIND[header.kind],
        segments=segments_to_proto(header.specs),
        spans=[pb.Span(section=section, start=start, end=end) for section, start, end in header.spans],
        tail=header.tail,
    )


def slice_header_from_proto(message: pb.SliceHeader, limits: Limits) -> SliceHeader:
    """Raises BadHeader or TooLarge. Compare with the request next (`check_header`)."""
    at_most("segments", sum(max(1, len(run.kinds)) for run in message.segments), limits.max_segments)
    at_most("positions", len(message.spans) + message.tail, limits.max_positions)
    header = SliceHeader(
        request_digest=exactly("request digest", message.request_digest, REQUEST_DIGEST_BYTES),
        kind=key_of("slice kind", SLICE_KIND, message.kind),
        specs=segments_from_proto(message.segments),
        spans=tuple((span.section, span.start, span.end) for span in message.spans),
        tail=message.tail,
    )
    limits.check_slice(header)
    return header


def segments_to_proto(specs: Sequence[SegmentSpec]) -> list[pb.SegmentRun]:
    """Runs of segments that have shape and element type in common."""
    messages = []
    for (shape, dtype), alike in groupby(specs, lambda spec: (spec.shape, spec.dtype)):
        message = pb.SegmentRun(shape=shape, element_type=ELEMENT[dtype])
        for spec in alike:
            message.kinds.append(SEGMENT_KIND[spec.kind])
            message.layers.append(spec.layer)
        messages.append(message)
    return messages


def segments_from_proto(messages: Sequence[pb.SegmentRun]) -> tuple[SegmentSpec, ...]:
    """Raises BadHeader."""
    specs: list[SegmentSpec] = []
    for run in messages:
        if not run.kinds or len(run.kinds) != len(run.layers):
            raise BadHeader(f"{len(run.kinds)} kinds of segments and {len(run.layers)} layers")
        shape, dtype = tuple(run.shape[:4]), key_of("element type", ELEMENT, run.element_type)
        for kind, layer in zip(run.kinds, run.layers, strict=True):
            specs.append(
                SegmentSpec(len(specs), key_of("segment kind", SEGMENT_KIND, kind), layer, shape, dtype)
            )
    return tuple(specs)


def frame_to_proto(frame: Frame) -> pb.Frame:
    return pb.Frame(sequence=frame.sequence, data=frame.data, checksum=frame.checksum)


def frame_from_proto(message: pb.Frame, limits: Limits) -> Frame:
    """Raises TooLarge. The checksum is the assembler's to check."""
    at_most("frame bytes", len(message.data), limits.max_frame_bytes)
    return Frame(message.sequence, message.data, message.checksum)


def slice_trailer_to_proto(trailer: SliceTrailer) -> pb.SliceTrailer:
    return pb.SliceTrailer(
        digest=trailer.digest,
        frames=trailer.frames,
        payload_bytes=trailer.payload_bytes,
        positions=trailer.positions,
        timings=timings_to_proto(trailer.timings),
    )


def slice_trailer_from_proto(message: pb.SliceTrailer) -> SliceTrailer:
    """Raises BadHeader."""
    return SliceTrailer(
        exactly("digest", message.digest, DIGEST_BYTES),
        message.frames,
        message.payload_bytes,
        message.positions,
        timings_from_proto(message.timings),
    )


def share_response_to_proto(part: SliceHeader | Frame | SliceTrailer) -> pb.ShareResponse:
    if isinstance(part, SliceHeader):
        return pb.ShareResponse(header=slice_header_to_proto(part))
    if isinstance(part, Frame):
        return pb.ShareResponse(frame=frame_to_proto(part))
    return pb.ShareResponse(trailer=slice_trailer_to_proto(part))


def share_response_from_proto(
    message: pb.ShareResponse, limits: Limits
) -> SliceHeader | Frame | SliceTrailer:
    """Raises BadHeader or TooLarge."""
    part = message.WhichOneof("part")
    if part == "header":
        return slice_header_from_proto(message.header, limits)
    if part == "frame":
        return frame_from_proto(message.frame, limits)
    if part == "trailer":
        return slice_trailer_from_proto(message.trailer)
    raise BadHeader("an empty part of a slice")
