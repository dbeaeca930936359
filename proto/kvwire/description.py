"""What a cloud offers, and the handshake that both sides check it with."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from kvwire.errors import BadHeader, IncompatiblePeer, TooLarge
from kvwire.identity import ModelRef
from kvwire.limits import Limits
from kvwire.request import PROTOCOL_VERSION, RelayRequest, ShareRequest
from kvwire.section import Visibility
from kvwire.segment import SliceHeader, SliceKind


@dataclass(frozen=True, slots=True)
class CodecRef:
    """A codec by name and by the hash of its parameters."""

    name: str
    parameters_hash: str


@dataclass(frozen=True, slots=True)
class BundleRef:
    """A bundle by its content hash, the Receiver it was trained for, the slices it can make, and codecs of its own."""

    bundle_hash: str
    receiver: ModelRef
    kinds: tuple[SliceKind, ...]
    codecs: tuple[CodecRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """What a cloud offers. `codecs` serve every bundle; a bundle may bring others."""

    sharer: ModelRef
    bundles: tuple[BundleRef, ...]
    codecs: tuple[CodecRef, ...]
    limits: Limits = field(default_factory=Limits)
    relay_allowed: bool = False
    protocol_versions: tuple[int, ...] = (PROTOCOL_VERSION,)


def check_request(request: ShareRequest | RelayRequest, description: Description) -> None:
    """Before any payload: what the edge holds must be what the cloud holds. Either side may call this.

    Raises:
        IncompatiblePeer: names the first field that differs, with both values.
    """
    versions, version = description.protocol_versions, request.protocol_version
    if version not in versions:
        raise IncompatiblePeer("protocol version", _list(versions), version)
    _same("Sharer", description.sharer, request.sharer)
    if isinstance(request, RelayRequest):
        return
    bundles = {bundle.bundle_hash: bundle for bundle in description.bundles}
    if request.bundle_hash not in bundles:
        raise IncompatiblePeer("bundle hash", _list(bundles), request.bundle_hash)
    bundle = bundles[request.bundle_hash]
    if request.kind not in bundle.kinds:
        raise IncompatiblePeer("slice kind", _list(bundle.kinds), request.kind)
    hashes = {codec.name: codec.parameters_hash for codec in (*description.codecs, *bundle.codecs)}
    codec = request.plan.codec
    if codec not in hashes:
        raise IncompatiblePeer("codec", _list(hashes), codec)
    _same(f"parameters of codec {codec}", hashes[codec], request.codec_hash)


def check_header(header: SliceHeader, request: ShareRequest) -> None:
    """At the edge: the header must answer this very request, so no field of it can carry anything else.

    Raises:
        TooLarge: more positions than asked for.
        BadHeader: the header of another request, or spans outside the shared sections' text.
    """
    if header.request_digest != request.digest() or header.kind is not request.kind:
        raise BadHeader("the header of another request")
    most = request.plan.last if header.kind is SliceKind.SHARED else request.plan.positions
    if most and header.positions > most:
        raise TooLarge("positions", header.positions, most)
    ends = [len(s.text or "") if s.visibility is Visibility.SHARED else -1 for s in request.sections]
    if any(section >= len(ends) or end > ends[section] for section, _, end in header.spans):
        raise BadHeader("a span outside the shared sections")


def _same(name: str, cloud: object, edge: object) -> None:
    if cloud != edge:
        raise IncompatiblePeer(name, cloud, edge)


def _list(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)
