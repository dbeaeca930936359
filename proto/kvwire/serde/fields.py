"""Single fields (closed enums, names, sizes), the small messages that others hold, and what a cloud offers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TypeVar

from kvwire.errors import BadHeader, TooLarge
from kvwire.identity import ModelRef
from kvwire.limits import Limits
from kvwire.messages import BundleRef, CodecRef, Description
from kvwire.plan import Granted
from kvwire.section import Role, Visibility
from kvwire.segment import SegmentKind, SliceKind
from kvwire.v1 import sharer_pb2 as pb

MAX_NAME_CHARS = 256
_K = TypeVar("_K")
_V = TypeVar("_V")

ROLE: Mapping[Role, pb.Role] = {
    Role.SYSTEM: pb.ROLE_SYSTEM,
    Role.DOCUMENT: pb.ROLE_DOCUMENT,
    Role.QUESTION: pb.ROLE_QUESTION,
}
VISIBILITY: Mapping[Visibility, pb.Visibility] = {
    Visibility.SHARED: pb.VISIBILITY_SHARED,
    Visibility.CLOUD: pb.VISIBILITY_CLOUD,
}
SLICE_KIND: Mapping[SliceKind, pb.SliceKind] = {
    SliceKind.SHARED: pb.SLICE_KIND_SHARED,
    SliceKind.EXCERPT: pb.SLICE_KIND_EXCERPT,
    SliceKind.DRAFT: pb.SLICE_KIND_DRAFT,
}
SEGMENT_KIND: Mapping[SegmentKind, pb.SegmentKind] = {
    SegmentKind.KEY: pb.SEGMENT_KIND_KEY,
    SegmentKind.VALUE: pb.SEGMENT_KIND_VALUE,
    SegmentKind.CODE: pb.SEGMENT_KIND_CODE,
    SegmentKind.KEY_CODE: pb.SEGMENT_KIND_KEY_CODE,
    SegmentKind.VALUE_CODE: pb.SEGMENT_KIND_VALUE_CODE,
}
ELEMENT: Mapping[str, pb.ElementType] = {
    "float32": pb.ELEMENT_TYPE_FLOAT32,
    "bfloat16": pb.ELEMENT_TYPE_BFLOAT16,
    "float16": pb.ELEMENT_TYPE_FLOAT16,
}


def key_of(what: str, table: Mapping[_K, _V], value: _V) -> _K:
    """The domain value of an enum's number.

    Raises:
        BadHeader: unspecified or unknown.
    """
    for key, number in table.items():
        if number == value:
            return key
    raise BadHeader(f"{what} {value}")


def name_of(what: str, text: str) -> str:
    """A name or hash.

    Raises:
        BadHeader: empty or over `MAX_NAME_CHARS`.
    """
    if not 0 < len(text) <= MAX_NAME_CHARS:
        raise BadHeader(f"{what} of {len(text)} characters")
    return text


def exactly(what: str, data: bytes, size: int) -> bytes:
    """Bytes of one fixed size.

    Raises:
        BadHeader: of another size.
    """
    if len(data) != size:
        raise BadHeader(f"{what} of {len(data)} bytes, not {size}")
    return data


def at_most(what: str, size: int, limit: int) -> None:
    """Raises TooLarge if size is over limit."""
    if size > limit:
        raise TooLarge(what, size, limit)


def model_ref_to_proto(model: ModelRef) -> pb.ModelRef:
    return pb.ModelRef(name=model.name, revision=model.revision)


def model_ref_from_proto(message: pb.ModelRef) -> ModelRef:
    """Raises BadHeader if a part is empty or too long."""
    return ModelRef(name_of("model name", message.name), name_of("model revision", message.revision))


def timings_to_proto(timings: Mapping[str, float]) -> pb.Timings:
    return pb.Timings(
        queue_s=timings.get("queue", 0.0),
        prefill_s=timings.get("prefill", 0.0),
        encode_s=timings.get("encode", 0.0),
    )


def timings_from_proto(message: pb.Timings) -> dict[str, float]:
    """Raises BadHeader if a time is negative or not finite."""
    timings = {"queue": message.queue_s, "prefill": message.prefill_s, "encode": message.encode_s}
    if any(not (math.isfinite(seconds) and seconds >= 0) for seconds in timings.values()):
        raise BadHeader("a time that is negative or not finite")
    return timings


_MAX_LISTED = 256


def limits_to_proto(limits: Limits) -> pb.Limits:
    return pb.Limits(**asdict(limits))


def limits_from_proto(message: pb.Limits) -> Limits:
    """Raises BadHeader if a limit is missing or they contradict each other."""
    try:
        return Limits(**{field.name: getattr(message, field.name) for field in fields(Limits)})
    except ValueError as error:
        raise BadHeader(str(error)) from None


def bundle_ref_to_proto(bundle: BundleRef) -> pb.BundleRef:
    return pb.BundleRef(
        bundle_hash=bundle.bundle_hash,
        receiver=model_ref_to_proto(bundle.receiver),
        kinds=[SLICE_KIND[kind] for kind in bundle.kinds],
        codecs=codec_refs_to_proto(bundle.codecs),
    )


def bundle_ref_from_proto(message: pb.BundleRef) -> BundleRef:
    """Raises BadHeader or TooLarge."""
    kinds = tuple(key_of("slice kind", SLICE_KIND, kind) for kind in message.kinds[: len(SLICE_KIND) + 1])
    return BundleRef(
        name_of("bundle hash", message.bundle_hash),
        model_ref_from_proto(message.receiver),
        kinds,
        codec_refs_from_proto(message.codecs),
    )


def codec_refs_to_proto(codecs: Sequence[CodecRef]) -> list[pb.CodecRef]:
    return [pb.CodecRef(name=codec.name, parameters_hash=codec.parameters_hash) for codec in codecs]


def codec_refs_from_proto(messages: Sequence[pb.CodecRef]) -> tuple[CodecRef, ...]:
    """Raises BadHeader or TooLarge."""
    at_most("codecs", len(messages), _MAX_LISTED)
    return tuple(
        CodecRef(name_of("codec", codec.name), name_of("codec hash", codec.parameters_hash))
        for codec in messages
    )


def description_to_proto(description: Description) -> pb.DescribeResponse:
    return pb.DescribeResponse(
        protocol_versions=description.protocol_versions,
        sharer=model_ref_to_proto(description.sharer),
        bundles=[bundle_ref_to_proto(bundle) for bundle in description.bundles],
        codecs=codec_refs_to_proto(description.codecs),
        limits=limits_to_proto(description.limits),
        relay_allowed=description.relay_allowed,
        granted=pb.Granted(**asdict(description.granted)),
    )


def description_from_proto(message: pb.DescribeResponse) -> Description:
    """Raises BadHeader or TooLarge."""
    for listed in (message.protocol_versions, message.bundles):
        at_most("things described", len(listed), _MAX_LISTED)
    return Description(
        sharer=model_ref_from_proto(message.sharer),
        bundles=tuple(bundle_ref_from_proto(bundle) for bundle in message.bundles),
        codecs=codec_refs_from_proto(message.codecs),
        limits=limits_from_proto(message.limits),
        relay_allowed=message.relay_allowed,
        granted=Granted(**{field.name: getattr(message.granted, field.name) for field in fields(Granted)}),
        protocol_versions=tuple(message.protocol_versions),
    )
