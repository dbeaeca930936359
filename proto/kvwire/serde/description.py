"""What a cloud says it offers."""

from collections.abc import Sequence
from dataclasses import asdict, fields

from kvwire.errors import BadHeader
from kvwire.limits import Limits
from kvwire.messages import BundleRef, CodecRef, Description
from kvwire.serde.fields import (
    SLICE_KIND,
    at_most,
    key_of,
    model_ref_from_proto,
    model_ref_to_proto,
    name_of,
)
from kvwire.v1 import sharer_pb2 as pb

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
        protocol_versions=tuple(message.protocol_versions),
    )
