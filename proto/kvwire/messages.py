"""What an edge asks for, what a cloud offers, and the handshake by which both sides compare the two."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from kvwire.errors import BadHeader, IncompatiblePeer, InvalidRequest, TooLarge
from kvwire.identity import ModelRef
from kvwire.limits import Limits
from kvwire.plan import Granted, Plan
from kvwire.section import Section, Visibility, documents_of
from kvwire.segment import REQUEST_DIGEST_BYTES, REQUEST_ID_BYTES, SliceHeader, SliceKind

PROTOCOL_VERSION: Final = 8
"""The one version of `kvwire.v1` this package speaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRequest:
    """Ask for one slice.

    Attributes:
        request_id: 16 random bytes.
        sharer, bundle_hash, codec_hash: what the edge holds; the cloud's must be equal. The codec is the plan's.
        plan: what of the slice is sent, and how; the export policy may allow fewer positions.
        sections: shared sections with text, cloud sections with a document id, in prompt order. Several documents and
            passages may be named, none of them twice.
        max_bytes: the most payload bytes the slice may come to; 0 is no cap.

    Raises:
        InvalidRequest: it holds what must not go up, or nothing; or the plan is for another kind of slice.
    """

    request_id: bytes
    sharer: ModelRef
    bundle_hash: str
    codec_hash: str
    kind: SliceKind
    plan: Plan
    sections: tuple[Section, ...]
    max_bytes: int = 0
    protocol_version: int = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        _check(self.request_id, self.sections, self.max_bytes)
        self.plan.check(self.kind)

    def digest(self) -> bytes:
        """The first 16 bytes of SHA-256 over every field in one canonical order; the slice's header repeats it."""
        values = [
            self.protocol_version,
            self.request_id.hex(),
            self.sharer.name,
            self.sharer.revision,
            self.bundle_hash,
            self.codec_hash,
            self.kind,
            dataclasses.astuple(self.plan),
            [[s.role, s.visibility, s.text, s.document_id, s.passage] for s in self.sections],
            self.max_bytes,
        ]
        text = json.dumps(values, separators=(",", ":"))
        return hashlib.sha256(text.encode()).digest()[:REQUEST_DIGEST_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayRequest:
    """Ask for the Sharer's own answer as text: the baseline, off unless the cloud allows it.

    Attributes:
        max_bytes: the most bytes of UTF-8 the text may have, where it is then cut; 0 is no cap.

    Raises:
        InvalidRequest: it holds what must not go up, or nothing.
    """

    request_id: bytes
    sharer: ModelRef
    max_new_tokens: int
    sections: tuple[Section, ...]
    max_bytes: int = 0
    protocol_version: int = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        _check(self.request_id, self.sections, self.max_bytes)
        if self.max_new_tokens < 1:
            raise InvalidRequest("max_new_tokens is below 1")


@dataclass(frozen=True, slots=True)
class RelayReply:
    """The Sharer's own answer.

    Attributes:
        text: the answer.
        tokens: how many Sharer tokens it has.
        timings: seconds, keys "queue" (for a replica, then for its model), "prefill", "encode" (0 here).
        versions: as in `SliceHeader`.
    """

    request_id: bytes
    text: str
    tokens: int
    timings: dict[str, float]
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """Ask which passages of the caller's documents have a question's words.

    Attributes:
        k: the most passages.

    Raises:
        InvalidRequest: there is no question, nothing is asked for, or more than the wire can say.
    """

    question: str
    k: int
    protocol_version: int = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise InvalidRequest("there is no question")
        if not 1 <= self.k < 2**32:  # what a field of the wire holds
            raise InvalidRequest("a search for no passage, or for more than can be said: k starts at 1")


@dataclass(frozen=True, slots=True)
class Found:
    """A passage that a search found: where it is, and nothing of what it says.

    It holds for as long as the document has the same text.

    Attributes:
        document: its id.
        passage: its number within the document, from 1.
        score: 0 to 1, the most that a passage could have for the question.

    Raises:
        InvalidRequest: it is no passage, or no score.
    """

    document: str
    passage: int
    score: float = 0.0

    def __post_init__(self) -> None:
        if not self.document or not 1 <= self.passage < 2**32 or not 0 <= self.score <= 1:
            raise InvalidRequest(f"passage {self.passage} found with score {self.score}")

    def __str__(self) -> str:
        """The document's id, `#` (which is in none), and the passage: note-1#2."""
        return f"{self.document}#{self.passage}"


def _check(request_id: bytes, sections: tuple[Section, ...], max_bytes: int) -> None:
    if not 0 <= max_bytes < 2**64:  # what a field of the wire holds
        raise InvalidRequest("max_bytes is negative or beyond 64 bits")
    if len(request_id) != REQUEST_ID_BYTES:
        raise InvalidRequest(f"a request id has {REQUEST_ID_BYTES} bytes, not {len(request_id)}")
    if not sections:
        raise InvalidRequest("a request has at least one section")
    named = [
        (section.document_id, section.passage) for section in sections if section.document_id is not None
    ]
    if len(set(named)) < len(named) or any(passage and (document, 0) in named for document, passage in named):
        raise InvalidRequest("a document, or a passage of one, stands in a request once")
    for section in sections:
        if section.visibility is Visibility.EDGE:
            raise InvalidRequest("a section for the edge alone is never sent")
        if section.visibility is Visibility.CLOUD and section.document_id is None:
            raise InvalidRequest("a cloud section is sent by its document id, never as text")


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
    """What a cloud offers. `codecs` serve every bundle; a bundle may bring others. `granted`: of documents."""

    sharer: ModelRef
    bundles: tuple[BundleRef, ...]
    codecs: tuple[CodecRef, ...]
    limits: Limits = field(default_factory=Limits)
    relay_allowed: bool = False
    granted: Granted = field(default_factory=Granted)
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
        BadHeader: the header of another request, spans outside the shared sections' text, or not a version for each
            document.
    """
    if header.request_digest != request.digest() or header.kind is not request.kind:
        raise BadHeader("the header of another request")
    plan = request.plan
    most = plan.last if header.kind is SliceKind.SHARED else plan.positions and plan.positions + plan.quoted
    if most and header.positions > most:
        raise TooLarge("positions", header.positions, most)
    ends = [len(s.text or "") if s.visibility is Visibility.SHARED else -1 for s in request.sections]
    if any(section >= len(ends) or end > ends[section] for section, _, end in header.spans):
        raise BadHeader("a span outside the shared sections")
    check_versions(header.versions, request)


def check_versions(versions: Sequence[str], request: ShareRequest | RelayRequest) -> None:
    """At the edge: there is one for each document.

    Raises:
        BadHeader: there are fewer, or more.
    """
    if len(versions) != len(documents := documents_of(request.sections)):
        raise BadHeader(f"{len(versions)} versions of {len(documents)} documents")


def _same(name: str, cloud: object, edge: object) -> None:
    if cloud != edge:
        raise IncompatiblePeer(name, cloud, edge)


def _list(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)
