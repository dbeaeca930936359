from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_SYSTEM: _ClassVar[Role]
    ROLE_DOCUMENT: _ClassVar[Role]
    ROLE_QUESTION: _ClassVar[Role]

class Visibility(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VISIBILITY_UNSPECIFIED: _ClassVar[Visibility]
    VISIBILITY_SHARED: _ClassVar[Visibility]
    VISIBILITY_CLOUD: _ClassVar[Visibility]

class SliceKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SLICE_KIND_UNSPECIFIED: _ClassVar[SliceKind]
    SLICE_KIND_SHARED: _ClassVar[SliceKind]
    SLICE_KIND_EXCERPT: _ClassVar[SliceKind]
    SLICE_KIND_DRAFT: _ClassVar[SliceKind]

class SegmentKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEGMENT_KIND_UNSPECIFIED: _ClassVar[SegmentKind]
    SEGMENT_KIND_KEY: _ClassVar[SegmentKind]
    SEGMENT_KIND_VALUE: _ClassVar[SegmentKind]
    SEGMENT_KIND_CODE: _ClassVar[SegmentKind]
    SEGMENT_KIND_KEY_CODE: _ClassVar[SegmentKind]
    SEGMENT_KIND_VALUE_CODE: _ClassVar[SegmentKind]

class ElementType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ELEMENT_TYPE_UNSPECIFIED: _ClassVar[ElementType]
    ELEMENT_TYPE_FLOAT32: _ClassVar[ElementType]
    ELEMENT_TYPE_BFLOAT16: _ClassVar[ElementType]
    ELEMENT_TYPE_FLOAT16: _ClassVar[ElementType]
ROLE_UNSPECIFIED: Role
ROLE_SYSTEM: Role
ROLE_DOCUMENT: Role
ROLE_QUESTION: Role
VISIBILITY_UNSPECIFIED: Visibility
VISIBILITY_SHARED: Visibility
VISIBILITY_CLOUD: Visibility
SLICE_KIND_UNSPECIFIED: SliceKind
SLICE_KIND_SHARED: SliceKind
SLICE_KIND_EXCERPT: SliceKind
SLICE_KIND_DRAFT: SliceKind
SEGMENT_KIND_UNSPECIFIED: SegmentKind
SEGMENT_KIND_KEY: SegmentKind
SEGMENT_KIND_VALUE: SegmentKind
SEGMENT_KIND_CODE: SegmentKind
SEGMENT_KIND_KEY_CODE: SegmentKind
SEGMENT_KIND_VALUE_CODE: SegmentKind
ELEMENT_TYPE_UNSPECIFIED: ElementType
ELEMENT_TYPE_FLOAT32: ElementType
ELEMENT_TYPE_BFLOAT16: ElementType
ELEMENT_TYPE_FLOAT16: ElementType

class ModelRef(_message.Message):
    __slots__ = ("name", "revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    revision: str
    def __init__(self, name: _Optional[str] = ..., revision: _Optional[str] = ...) -> None: ...

class Section(_message.Message):
    __slots__ = ("role", "visibility", "text", "document_id", "passage")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    PASSAGE_FIELD_NUMBER: _ClassVar[int]
    role: Role
    visibility: Visibility
    text: str
    document_id: str
    passage: int
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., visibility: _Optional[_Union[Visibility, str]] = ..., text: _Optional[str] = ..., document_id: _Optional[str] = ..., passage: _Optional[int] = ...) -> None: ...

class ShareRequest(_message.Message):
    __slots__ = ("protocol_version", "request_id", "sharer", "bundle_hash", "codec_hash", "kind", "plan", "sections", "max_bytes")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SHARER_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_HASH_FIELD_NUMBER: _ClassVar[int]
    CODEC_HASH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    request_id: bytes
    sharer: ModelRef
    bundle_hash: str
    codec_hash: str
    kind: SliceKind
    plan: Plan
    sections: _containers.RepeatedCompositeFieldContainer[Section]
    max_bytes: int
    def __init__(self, protocol_version: _Optional[int] = ..., request_id: _Optional[bytes] = ..., sharer: _Optional[_Union[ModelRef, _Mapping]] = ..., bundle_hash: _Optional[str] = ..., codec_hash: _Optional[str] = ..., kind: _Optional[_Union[SliceKind, str]] = ..., plan: _Optional[_Union[Plan, _Mapping]] = ..., sections: _Optional[_Iterable[_Union[Section, _Mapping]]] = ..., max_bytes: _Optional[int] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("codec", "positions", "code_dim", "layers", "last", "bottleneck", "padded", "quoted", "runs", "fit")
    CODEC_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    CODE_DIM_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    BOTTLENECK_FIELD_NUMBER: _ClassVar[int]
    PADDED_FIELD_NUMBER: _ClassVar[int]
    QUOTED_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    FIT_FIELD_NUMBER: _ClassVar[int]
    codec: str
    positions: int
    code_dim: int
    layers: _containers.RepeatedScalarFieldContainer[int]
    last: int
    bottleneck: bool
    padded: bool
    quoted: int
    runs: int
    fit: bool
    def __init__(self, codec: _Optional[str] = ..., positions: _Optional[int] = ..., code_dim: _Optional[int] = ..., layers: _Optional[_Iterable[int]] = ..., last: _Optional[int] = ..., bottleneck: bool = ..., padded: bool = ..., quoted: _Optional[int] = ..., runs: _Optional[int] = ..., fit: bool = ...) -> None: ...

class ShareResponse(_message.Message):
    __slots__ = ("header", "frame", "trailer")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    TRAILER_FIELD_NUMBER: _ClassVar[int]
    header: SliceHeader
    frame: Frame
    trailer: SliceTrailer
    def __init__(self, header: _Optional[_Union[SliceHeader, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ..., trailer: _Optional[_Union[SliceTrailer, _Mapping]] = ...) -> None: ...

class SliceHeader(_message.Message):
    __slots__ = ("kind", "segments", "spans", "tail", "request_digest", "versions")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    kind: SliceKind
    segments: _containers.RepeatedCompositeFieldContainer[SegmentRun]
    spans: _containers.RepeatedCompositeFieldContainer[Span]
    tail: int
    request_digest: bytes
    versions: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, kind: _Optional[_Union[SliceKind, str]] = ..., segments: _Optional[_Iterable[_Union[SegmentRun, _Mapping]]] = ..., spans: _Optional[_Iterable[_Union[Span, _Mapping]]] = ..., tail: _Optional[int] = ..., request_digest: _Optional[bytes] = ..., versions: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SegmentRun(_message.Message):
    __slots__ = ("kinds", "layers", "shape", "element_type")
    KINDS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    ELEMENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    kinds: _containers.RepeatedScalarFieldContainer[SegmentKind]
    layers: _containers.RepeatedScalarFieldContainer[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    element_type: ElementType
    def __init__(self, kinds: _Optional[_Iterable[_Union[SegmentKind, str]]] = ..., layers: _Optional[_Iterable[int]] = ..., shape: _Optional[_Iterable[int]] = ..., element_type: _Optional[_Union[ElementType, str]] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("section", "start", "end")
    SECTION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    section: int
    start: int
    end: int
    def __init__(self, section: _Optional[int] = ..., start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("sequence", "data", "checksum")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    data: bytes
    checksum: int
    def __init__(self, sequence: _Optional[int] = ..., data: _Optional[bytes] = ..., checksum: _Optional[int] = ...) -> None: ...

class SliceTrailer(_message.Message):
    __slots__ = ("digest", "frames", "payload_bytes", "positions", "timings", "likely", "answerable", "quoted", "runs", "positions_left", "questions_left", "new_positions_left")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    LIKELY_FIELD_NUMBER: _ClassVar[int]
    ANSWERABLE_FIELD_NUMBER: _ClassVar[int]
    QUOTED_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_LEFT_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_LEFT_FIELD_NUMBER: _ClassVar[int]
    NEW_POSITIONS_LEFT_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    frames: int
    payload_bytes: int
    positions: int
    timings: Timings
    likely: int
    answerable: int
    quoted: int
    runs: int
    positions_left: int
    questions_left: int
    new_positions_left: int
    def __init__(self, digest: _Optional[bytes] = ..., frames: _Optional[int] = ..., payload_bytes: _Optional[int] = ..., positions: _Optional[int] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., likely: _Optional[int] = ..., answerable: _Optional[int] = ..., quoted: _Optional[int] = ..., runs: _Optional[int] = ..., positions_left: _Optional[int] = ..., questions_left: _Optional[int] = ..., new_positions_left: _Optional[int] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue_s", "prefill_s", "encode_s")
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    PREFILL_S_FIELD_NUMBER: _ClassVar[int]
    ENCODE_S_FIELD_NUMBER: _ClassVar[int]
    queue_s: float
    prefill_s: float
    encode_s: float
    def __init__(self, queue_s: _Optional[float] = ..., prefill_s: _Optional[float] = ..., encode_s: _Optional[float] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("protocol_version",)
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    def __init__(self, protocol_version: _Optional[int] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("protocol_versions", "sharer", "bundles", "codecs", "limits", "relay_allowed", "granted")
    PROTOCOL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SHARER_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    RELAY_ALLOWED_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    protocol_versions: _containers.RepeatedScalarFieldContainer[int]
    sharer: ModelRef
    bundles: _containers.RepeatedCompositeFieldContainer[BundleRef]
    codecs: _containers.RepeatedCompositeFieldContainer[CodecRef]
    limits: Limits
    relay_allowed: bool
    granted: Granted
    def __init__(self, protocol_versions: _Optional[_Iterable[int]] = ..., sharer: _Optional[_Union[ModelRef, _Mapping]] = ..., bundles: _Optional[_Iterable[_Union[BundleRef, _Mapping]]] = ..., codecs: _Optional[_Iterable[_Union[CodecRef, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., relay_allowed: bool = ..., granted: _Optional[_Union[Granted, _Mapping]] = ...) -> None: ...

class Granted(_message.Message):
    __slots__ = ("max_positions", "max_quoted", "max_runs", "shared_over_documents")
    MAX_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUOTED_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNS_FIELD_NUMBER: _ClassVar[int]
    SHARED_OVER_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    max_positions: int
    max_quoted: int
    max_runs: int
    shared_over_documents: int
    def __init__(self, max_positions: _Optional[int] = ..., max_quoted: _Optional[int] = ..., max_runs: _Optional[int] = ..., shared_over_documents: _Optional[int] = ...) -> None: ...

class BundleRef(_message.Message):
    __slots__ = ("bundle_hash", "receiver", "kinds", "codecs")
    BUNDLE_HASH_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    bundle_hash: str
    receiver: ModelRef
    kinds: _containers.RepeatedScalarFieldContainer[SliceKind]
    codecs: _containers.RepeatedCompositeFieldContainer[CodecRef]
    def __init__(self, bundle_hash: _Optional[str] = ..., receiver: _Optional[_Union[ModelRef, _Mapping]] = ..., kinds: _Optional[_Iterable[_Union[SliceKind, str]]] = ..., codecs: _Optional[_Iterable[_Union[CodecRef, _Mapping]]] = ...) -> None: ...

class CodecRef(_message.Message):
    __slots__ = ("name", "parameters_hash")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_HASH_FIELD_NUMBER: _ClassVar[int]
    name: str
    parameters_hash: str
    def __init__(self, name: _Optional[str] = ..., parameters_hash: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_frame_bytes", "max_message_bytes", "max_request_bytes", "max_sections", "max_section_chars", "max_question_chars", "max_document_id_chars", "max_positions", "max_segments", "max_slice_bytes", "max_new_tokens", "min_deadline_s", "max_deadline_s", "max_prompt_chars", "min_ping_interval_s", "max_found")
    MAX_FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_SECTIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_SECTION_CHARS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUESTION_CHARS_FIELD_NUMBER: _ClassVar[int]
    MAX_DOCUMENT_ID_CHARS_FIELD_NUMBER: _ClassVar[int]
    MAX_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    MAX_SLICE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MIN_DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    MAX_DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_CHARS_FIELD_NUMBER: _ClassVar[int]
    MIN_PING_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    MAX_FOUND_FIELD_NUMBER: _ClassVar[int]
    max_frame_bytes: int
    max_message_bytes: int
    max_request_bytes: int
    max_sections: int
    max_section_chars: int
    max_question_chars: int
    max_document_id_chars: int
    max_positions: int
    max_segments: int
    max_slice_bytes: int
    max_new_tokens: int
    min_deadline_s: float
    max_deadline_s: float
    max_prompt_chars: int
    min_ping_interval_s: float
    max_found: int
    def __init__(self, max_frame_bytes: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_request_bytes: _Optional[int] = ..., max_sections: _Optional[int] = ..., max_section_chars: _Optional[int] = ..., max_question_chars: _Optional[int] = ..., max_document_id_chars: _Optional[int] = ..., max_positions: _Optional[int] = ..., max_segments: _Optional[int] = ..., max_slice_bytes: _Optional[int] = ..., max_new_tokens: _Optional[int] = ..., min_deadline_s: _Optional[float] = ..., max_deadline_s: _Optional[float] = ..., max_prompt_chars: _Optional[int] = ..., min_ping_interval_s: _Optional[float] = ..., max_found: _Optional[int] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("protocol_version", "question", "k")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    question: str
    k: int
    def __init__(self, protocol_version: _Optional[int] = ..., question: _Optional[str] = ..., k: _Optional[int] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("passages",)
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    passages: _containers.RepeatedCompositeFieldContainer[Found]
    def __init__(self, passages: _Optional[_Iterable[_Union[Found, _Mapping]]] = ...) -> None: ...

class Found(_message.Message):
    __slots__ = ("document_id", "passage", "score")
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    PASSAGE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    passage: int
    score: float
    def __init__(self, document_id: _Optional[str] = ..., passage: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class RelayRequest(_message.Message):
    __slots__ = ("protocol_version", "request_id", "sharer", "max_new_tokens", "sections", "max_bytes")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SHARER_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    request_id: bytes
    sharer: ModelRef
    max_new_tokens: int
    sections: _containers.RepeatedCompositeFieldContainer[Section]
    max_bytes: int
    def __init__(self, protocol_version: _Optional[int] = ..., request_id: _Optional[bytes] = ..., sharer: _Optional[_Union[ModelRef, _Mapping]] = ..., max_new_tokens: _Optional[int] = ..., sections: _Optional[_Iterable[_Union[Section, _Mapping]]] = ..., max_bytes: _Optional[int] = ...) -> None: ...

class RelayResponse(_message.Message):
    __slots__ = ("request_id", "text", "tokens", "timings", "versions")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    text: str
    tokens: int
    timings: Timings
    versions: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, request_id: _Optional[bytes] = ..., text: _Optional[str] = ..., tokens: _Optional[int] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., versions: _Optional[_Iterable[bytes]] = ...) -> None: ...
