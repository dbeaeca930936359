"""Requests and the relay's reply."""

from collections.abc import Sequence

from kvwire.errors import InvalidRequest
from kvwire.limits import Limits
from kvwire.messages import RelayReply, RelayRequest, ShareRequest
from kvwire.plan import Plan
from kvwire.section import Section
from kvwire.segment import REQUEST_ID_BYTES
from kvwire.serde.fields import (
    ROLE,
    SLICE_KIND,
    VISIBILITY,
    at_most,
    exactly,
    key_of,
    model_ref_from_proto,
    model_ref_to_proto,
    name_of,
    timings_from_proto,
    timings_to_proto,
)
from kvwire.v1 import sharer_pb2 as pb


def section_to_proto(section: Section) -> pb.Section:
    """Raises InvalidRequest for a section that only the edge may hold."""
    if section.visibility not in VISIBILITY:
        raise InvalidRequest("a section for the edge alone is never sent")
    role, visibility = ROLE[section.role], VISIBILITY[section.visibility]
    return pb.Section(role=role, visibility=visibility, text=section.text, document_id=section.document_id)


def section_from_proto(message: pb.Section) -> Section:
    """Raises BadHeader for an unknown role or visibility, InvalidRequest for a contradiction."""
    body = message.WhichOneof("body")
    return Section(
        key_of("role", ROLE, message.role),
        key_of("visibility", VISIBILITY, message.visibility),
        text=message.text if body == "text" else None,
        document_id=message.document_id if body == "document_id" else None,
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
    )


def relay_reply_from_proto(message: pb.RelayResponse) -> RelayReply:
    """Raises BadHeader."""
    request_id = exactly("request id", message.request_id, REQUEST_ID_BYTES)
    return RelayReply(request_id, message.text, message.tokens, timings_from_proto(message.timings))
