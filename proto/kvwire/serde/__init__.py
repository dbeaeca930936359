"""Domain <-> protobuf, in pairs: what a peer sent becomes a domain object or raises, never a KeyError."""

from collections.abc import Sequence
from itertools import groupby
from typing import Final

from kvwire.errors import BadHeader, InvalidRequest
from kvwire.limits import Limits
from kvwire.messages import Found, RelayReply, RelayRequest, SearchRequest, ShareRequest
from kvwire.plan import Plan
from kvwire.section import Section
from kvwire.segment import (
    LEAST_LIKELY,
    LIKELY_STEPS,
    MOST_ODDS,
    ODDS_STEPS,
    REQUEST_DIGEST_BYTES,
    REQUEST_ID_BYTES,
    VERSION_BYTES,
    Certainty,
    SegmentSpec,
    SliceHeader,
    SliceTrailer,
)
from kvwire.serde.fields import (
    ELEMENT,
    ROLE,
    SEGMENT_KIND,
    SLICE_KIND,
    VISIBILITY,
    at_most,
    bundle_ref_from_proto,
    bundle_ref_to_proto,
    description_from_proto,
    description_to_proto,
    exactly,
    key_of,
    limits_from_proto,
    limits_to_proto,
    model_ref_from_proto,
    model_ref_to_proto,
    name_of,
    timings_from_proto,
    timings_to_proto,
)
from kvwire.slice_io import Frame
from kvwire.v1 import sharer_pb2 as pb

__all__ = [
    "bundle_ref_from_proto",
    "bundle_ref_to_proto",
    "description_from_proto",
    "description_to_proto",
    "limits_from_proto",
    "limits_to_proto",
    "model_ref_from_proto",
    "model_ref_to_proto",
    "timings_from_proto",
    "timings_to_proto",
    "found_from_proto",
    "found_to_proto",
    "relay_reply_from_proto",
    "relay_reply_to_proto",
    "relay_request_from_proto",
    "relay_request_to_proto",
    "search_request_from_proto",
    "search_request_to_proto",
    "section_from_proto",
    "section_to_proto",
    "sections_from_proto",
    "share_request_from_proto",
    "share_request_to_proto",
    "frame_from_proto",
    "frame_to_proto",
    "segments_from_proto",
    "segments_to_proto",
    "share_response_from_proto",
    "share_response_to_proto",
    "slice_header_from_proto",
    "slice_header_to_proto",
    "slice_trailer_from_proto",
    "slice_trailer_to_proto",
]

DIGEST_BYTES = 16


def section_to_proto(section: Section) -> pb.Section:
    """Raises InvalidRequest for a section that only the edge may hold."""
    if section.visibility not in VISIBILITY:
        raise InvalidRequest("a section for the edge alone is never sent")
    role, visibility = ROLE[section.role], VISIBILITY[section.visibility]
    return pb.Section(
        role=role,
        visibility=visibility,
        text=section.text,
        document_id=section.document_id,
        passage=section.passage,
    )


def section_from_proto(message: pb.Section) -> Section:
    """Raises BadHeader for an unknown role or visibility, InvalidRequest for a contradiction."""
    body = message.WhichOneof("body")
    return Section(
        key_of("role", ROLE, message.role),
        key_of("visibility", VISIBILITY, message.visibility),
        text=message.text if body == "text" else None,
        document_id=message.document_id if body == "document_id" else None,
        passage=message.passage,
    )


def sections_from_proto(messages: Sequence[pb.Section], limits: Limits) -> tuple[Section, ...]:
    """Raises BadHeader, TooLarge or InvalidRequest."""
    at_most("sections", len(messages), limits.max_sections)
    sections = tuple(section_from_proto(message) for message in messages)
    limits.check_sections(sections)
    return sections


def plan_to_proto(plan: Plan) -> pb.Plan:
    return pb.Plan(
        codec=plan.codec,
        positions=plan.positions,
        code_dim=plan.code_dim,
        layers=plan.layers,
        last=plan.last,
        bottleneck=plan.bottleneck,
        padded=plan.padded,
        quoted=plan.quoted,
        runs=plan.runs,
        fit=plan.fit,
    )


def plan_from_proto(message: pb.Plan, limits: Limits) -> Plan:
    """Raises BadHeader, TooLarge or InvalidRequest."""
    at_most("layers of a plan", len(message.layers), limits.max_segments)
    return Plan(
        codec=name_of("codec", message.codec),
        positions=message.positions,
        code_dim=message.code_dim,
        layers=tuple(message.layers),
        last=message.last,
        bottleneck=message.bottleneck,
        padded=message.padded,
        quoted=message.quoted,
        runs=message.runs,
        fit=message.fit,
    )


def share_request_to_proto(request: ShareRequest) -> pb.ShareRequest:
    return pb.ShareRequest(
        protocol_version=request.protocol_version,
        request_id=request.request_id,
        sharer=model_ref_to_proto(request.sharer),
        bundle_hash=request.bundle_hash,
        codec_hash=request.codec_hash,
        kind=SLICE_KIND[request.kind],
        plan=plan_to_proto(request.plan),
        sections=[section_to_proto(section) for section in request.sections],
        max_bytes=request.max_bytes,
    )


def share_request_from_proto(message: pb.ShareRequest, limits: Limits) -> ShareRequest:
    """Raises BadHeader, TooLarge or InvalidRequest. Compare with the description next (`check_request`)."""
    return ShareRequest(
        protocol_version=message.protocol_version,
        request_id=exactly("request id", message.request_id, REQUEST_ID_BYTES),
        sharer=model_ref_from_proto(message.sharer),
        bundle_hash=name_of("bundle hash", message.bundle_hash),
        codec_hash=name_of("codec hash", message.codec_hash),
        kind=key_of("slice kind", SLICE_KIND, message.kind),
        plan=plan_from_proto(message.plan, limits),
        sections=sections_from_proto(message.sections, limits),
        max_bytes=message.max_bytes,
    )


def search_request_to_proto(request: SearchRequest) -> pb.SearchRequest:
    return pb.SearchRequest(protocol_version=request.protocol_version, question=request.question, k=request.k)


def search_request_from_proto(message: pb.SearchRequest, limits: Limits) -> SearchRequest:
    """Raises TooLarge or InvalidRequest."""
    at_most("question characters", len(message.question), limits.max_question_chars)
    at_most("passages asked for", message.k, limits.max_found)
    return SearchRequest(protocol_version=message.protocol_version, question=message.question, k=message.k)


def found_to_proto(found: Sequence[Found]) -> pb.SearchResponse:
    return pb.SearchResponse(
        passages=[pb.Found(document_id=f.document, passage=f.passage, score=f.score) for f in found]
    )


def found_from_proto(message: pb.SearchResponse, k: int, limits: Limits) -> tuple[Found, ...]:
    """Raises BadHeader or TooLarge. `k`: how many were asked for."""
    at_most("passages found", len(message.passages), k)
    for one in message.passages:
        at_most("document id characters", len(one.document_id), limits.max_document_id_chars)
    try:
        found = tuple(Found(one.document_id, one.passage, one.score) for one in message.passages)
    except InvalidRequest as error:
        raise BadHeader(error.detail) from None
    if len({(one.document, one.passage) for one in found}) < len(found):
        raise BadHeader("a passage found twice")
    return found


def relay_request_to_proto(request: RelayRequest) -> pb.RelayRequest:
    return pb.RelayRequest(
        protocol_version=request.protocol_version,
        request_id=request.request_id,
        sharer=model_ref_to_proto(request.sharer),
        max_new_tokens=request.max_new_tokens,
        sections=[section_to_proto(section) for section in request.sections],
        max_bytes=request.max_bytes,
    )


def relay_request_from_proto(message: pb.RelayRequest, limits: Limits) -> RelayRequest:
    """Raises BadHeader, TooLarge or InvalidRequest."""
    at_most("new tokens", message.max_new_tokens, limits.max_new_tokens)
    return RelayRequest(
        protocol_version=message.protocol_version,
        request_id=exactly("request id", message.request_id, REQUEST_ID_BYTES),
        sharer=model_ref_from_proto(message.sharer),
        max_new_tokens=message.max_new_tokens,
        sections=sections_from_proto(message.sections, limits),
        max_bytes=message.max_bytes,
    )


def relay_reply_to_proto(reply: RelayReply) -> pb.RelayResponse:
    return pb.RelayResponse(
        request_id=reply.request_id,
        text=reply.text,
        tokens=reply.tokens,
        timings=timings_to_proto(reply.timings),
        versions=map(bytes.fromhex, reply.versions),
    )


def relay_reply_from_proto(message: pb.RelayResponse, limits: Limits) -> RelayReply:
    """Raises BadHeader or TooLarge. Compare its versions with the request's documents next (`check_versions`)."""
    return RelayReply(
        exactly("request id", message.request_id, REQUEST_ID_BYTES),
        message.text,
        message.tokens,
        timings_from_proto(message.timings),
        versions_from_proto(message.versions, limits),
    )


def versions_from_proto(versions: Sequence[bytes], limits: Limits) -> tuple[str, ...]:
    """Raises BadHeader or TooLarge."""
    at_most("versions", len(versions), limits.max_sections)
    return tuple(exactly("version", version, VERSION_BYTES).hex() for version in versions)


def slice_header_to_proto(header: SliceHeader) -> pb.SliceHeader:
    return pb.SliceHeader(
        request_digest=header.request_digest,
        kind=SLICE_KIND[header.kind],
        segments=segments_to_proto(header.specs),
        spans=[pb.Span(section=section, start=start, end=end) for section, start, end in header.spans],
        tail=header.tail,
        versions=map(bytes.fromhex, header.versions),
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
        versions=versions_from_proto(message.versions, limits),
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


_EVEN: Final = 128  # odds of one to one; 0 is not told


def slice_trailer_to_proto(trailer: SliceTrailer) -> pb.SliceTrailer:
    sure = trailer.certainty
    return pb.SliceTrailer(
        digest=trailer.digest,
        frames=trailer.frames,
        payload_bytes=trailer.payload_bytes,
        positions=trailer.positions,
        timings=timings_to_proto(trailer.timings),
        likely=0 if sure.likely is None else 1 - round(LIKELY_STEPS * sure.likely),
        answerable=0 if sure.answerable is None else _EVEN + round(ODDS_STEPS * sure.answerable),
        quoted=trailer.quoted,
        runs=trailer.runs,
        positions_left=trailer.positions_left,
        questions_left=trailer.questions_left,
        new_positions_left=trailer.new_positions_left,
    )


def slice_trailer_from_proto(message: pb.SliceTrailer) -> SliceTrailer:
    """Raises BadHeader."""
    likely = (1 - message.likely) / LIKELY_STEPS if message.likely else None
    if likely is not None and likely < LEAST_LIKELY:
        raise BadHeader(f"a draft that is {likely} nats likely; the least is {LEAST_LIKELY}")
    odds = (message.answerable - _EVEN) / ODDS_STEPS if message.answerable else None
    if odds is not None and odds > MOST_ODDS:
        raise BadHeader(f"answerable with odds of {odds} nats; the most are {MOST_ODDS}")
    return SliceTrailer(
        exactly("digest", message.digest, DIGEST_BYTES),
        message.frames,
        message.payload_bytes,
        message.positions,
        timings_from_proto(message.timings),
        Certainty(likely, odds),
        message.quoted,
        message.runs,
        message.positions_left if message.HasField("positions_left") else None,
        message.questions_left if message.HasField("questions_left") else None,
        message.new_positions_left if message.HasField("new_positions_left") else None,
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
