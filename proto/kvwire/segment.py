"""What travels: segments, described by a header and closed by a trailer."""

import hashlib
import json
import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from kvwire.errors import BadHeader, InvalidRequest

if TYPE_CHECKING:
    import torch

REQUEST_ID_BYTES: Final = 16
REQUEST_DIGEST_BYTES: Final = 16
VERSION_BYTES: Final = 16
MAX_LAYERS: Final = 2**16
ITEM_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Element types that may travel, and their bytes."""
_MAX_SEGMENT_ID = 2**31 - 1
_MAX_DIM = 2**24


class SliceKind(StrEnum):
    """What the positions of a slice are: of sections that both sides hold, of a document, or of the Sharer's own short
    answer, which may stand behind some of a document."""

    SHARED = "shared"
    EXCERPT = "excerpt"
    DRAFT = "draft"

    @classmethod
    def named(cls, name: str) -> Self:
        """A kind by its name, or a kind as it is.

        Raises:
            InvalidRequest: there is no such kind.
        """
        if name not in tuple(cls):
            raise InvalidRequest(f"unknown kind {name!r}; there are {', '.join(cls)}")
        return cls(name)


class SegmentKind(StrEnum):
    """What the numbers of a segment are: K or V of a Sharer layer, codes of a translate head, or the source half of
    a fuse head for one Receiver layer: of its K or of its V."""

    KEY = "key"
    VALUE = "value"
    CODE = "code"
    KEY_CODE = "key_code"
    VALUE_CODE = "value_code"

    @property
    def is_code(self) -> bool:
        """Whether the numbers of a position are one code, without heads."""
        return self not in (SegmentKind.KEY, SegmentKind.VALUE)


@dataclass(frozen=True, slots=True)
class SegmentSpec:
    """One segment: what it is and its exact shape, known before its bytes.

    Attributes:
        segment_id: its place in the slice, from 0.
        kind: what its numbers are.
        layer: Sharer layer of K or V, Receiver layer of a source half; -1 for CODE, which draws on several layers.
        shape: (kv_heads, positions, head_dim) for key and value, (positions, numbers) for codes.
        dtype: "float32", "bfloat16" or "float16".

    Raises:
        BadHeader: the fields contradict each other.
    """

    segment_id: int
    kind: SegmentKind
    layer: int
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if not 0 <= self.segment_id <= _MAX_SEGMENT_ID:
            raise BadHeader(f"segment id {self.segment_id}")
        if self.dtype not in ITEM_BYTES:
            raise BadHeader(f"element type {self.dtype!r}")
        layered = self.kind is not SegmentKind.CODE
        if len(self.shape) != (2 if self.kind.is_code else 3) or (
            not 0 <= self.layer < MAX_LAYERS if layered else self.layer != -1
        ):
            raise BadHeader(f"{self.kind} segment of layer {self.layer} with shape {self.shape}")
        axis = self.position_axis
        if any(not (axis != i) <= size <= _MAX_DIM for i, size in enumerate(self.shape)):
            raise BadHeader(f"{self.kind} segment with shape {self.shape}")

    @property
    def position_axis(self) -> int:
        """Which axis of `shape` counts positions."""
        return 0 if self.kind.is_code else 1

    @property
    def positions(self) -> int:
        """How many positions the segment holds; may be 0."""
        return self.shape[self.position_axis]

    @property
    def elements(self) -> int:
        """How many numbers the segment holds."""
        return math.prod(self.shape)

    @property
    def raw_bytes(self) -> int:
        """Bytes of the decoded segment."""
        return self.elements * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Segment:
    """A decoded segment: `tensor` has the spec's shape and dtype."""

    spec: SegmentSpec
    tensor: "torch.Tensor"


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """All that is known of a slice before its first frame.

    Attributes:
        request_digest: 16 bytes, `ShareRequest.digest` of the request that the slice answers. It stands for all that
            both sides know: request id, Sharer, bundle, codec and its parameters, plan and sections.
        specs: in sending order.
        spans: for each exported shared position (section index in the request, start, end), in characters of
            that section; SHARED only, empty otherwise.
        tail: template positions exported after the last span, never the prompt's last one of two or more; SHARED only,
            0 otherwise.
        versions: which text each document of the request had, in the order in which the sections first
            name them: 32 hex digits, drawn at random when the text was stored, so that they tell nothing of it.

    Raises:
        BadHeader: the fields contradict each other.
    """

    request_digest: bytes
    kind: SliceKind
    specs: tuple[SegmentSpec, ...]
    spans: tuple[tuple[int, int, int], ...] = ()
    tail: int = 0
    versions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.request_digest) != REQUEST_DIGEST_BYTES:
            raise BadHeader(f"request digest of {len(self.request_digest)} bytes")
        if any(spec.segment_id != place for place, spec in enumerate(self.specs)):
            raise BadHeader("a segment's id is its place")
        if len({(spec.kind, spec.layer) for spec in self.specs}) != len(self.specs):
            raise BadHeader("two segments for one kind and layer")
        if len({spec.positions for spec in self.specs}) > 1:
            raise BadHeader("segments with different numbers of positions")
        if self.kind is not SliceKind.SHARED:
            if self.spans or self.tail:
                raise BadHeader(f"spans or tail in a slice of kind {self.kind}")
            return
        if any(spec.kind is SegmentKind.CODE for spec in self.specs):
            raise BadHeader("a code in a shared slice")
        if self.tail < 0 or any(section < 0 or not 0 <= start <= end for section, start, end in self.spans):
            raise BadHeader("a span that ends before it starts")
        if any(spec.positions != self.positions for spec in self.specs):
            raise BadHeader("segments and spans with different numbers of positions")

    @property
    def positions(self) -> int:
        """How many positions the slice holds."""
        if self.kind is SliceKind.SHARED:
            return len(self.spans) + self.tail
        return self.specs[0].positions if self.specs else 0

    @property
    def raw_bytes(self) -> int:
        """Bytes of all segments, decoded."""
        return sum(spec.raw_bytes for spec in self.specs)

    def fingerprint(self) -> bytes:
        """SHA-256 over every field in one canonical order; the slice's digest begins with it."""
        specs = [[s.segment_id, s.kind, s.layer, list(s.shape), s.dtype] for s in self.specs]
        values = [
            self.request_digest.hex(),
            self.kind,
            specs,
            [list(span) for span in self.spans],
            self.tail,
            self.versions,
        ]
        return hashlib.sha256(json.dumps(values, separators=(",", ":")).encode()).digest()


LIKELY_STEPS: Final = 8
"""Of a nat."""
LEAST_LIKELY: Final = -31.75
"""In nats: 254 steps."""
ODDS_STEPS: Final = 16
"""Of a nat."""
MOST_ODDS: Final = 7.9375
"""In nats, either way: 127 steps."""


@dataclass(frozen=True, slots=True)
class Certainty:
    """How sure the Sharer is of what it answers; no text of it.

    likely: log-probability in nats, 0 at most, of the least likely token of its draft; None where it wrote none.
    answerable: log-odds in nats that the documents hold the answer; None where the bundle cannot tell.
    """

    likely: float | None = None
    answerable: float | None = None

    @property
    def coarse(self) -> "Certainty":
        """As it travels, in whole steps: so it says little of a text. Of a broken model, NaN, it is the least."""
        likely, odds = self.likely, self.answerable
        if likely is not None:
            likely = LEAST_LIKELY if likely != likely else max(LEAST_LIKELY, min(0.0, likely))
            likely = -round(LIKELY_STEPS * -likely) / LIKELY_STEPS
        if odds is not None:
            odds = -MOST_ODDS if odds != odds else max(-MOST_ODDS, min(MOST_ODDS, odds))
            odds = round(ODDS_STEPS * odds) / ODDS_STEPS
        return Certainty(likely, odds)

    @property
    def signals(self) -> dict[str, float]:
        """What is told, by the names of `fuser.kv.generate.SIGNALS`."""
        told = {"sharer": self.likely, "answerable": self.answerable}
        return {name: value for name, value in told.items() if value is not None}


UNTOLD: Final = Certainty()


@dataclass(frozen=True, slots=True)
class SliceTrailer:
    """The end of a slice.

    Attributes:
        digest: 16 bytes, `kvwire.slice_io.SliceDigest` over the header and all frames.
        frames: how many were sent.
        payload_bytes: of all payloads, without the lengths before them.
        positions: as in the header.
        timings: seconds, keys "queue" (for a replica, then for its model), "prefill", and "encode": what encoding took
            after the prefill was over.
        certainty: how sure the Sharer is, as `Certainty.coarse` leaves it.
        quoted, runs: positions of documents among them, and in how many runs of neighbours they stand.
        positions_left, questions_left, new_positions_left: what may still leave today, for who asked, of the document
            of which least may; None where there is no bound.

    Raises:
        BadHeader: the fields contradict each other.
    """

    digest: bytes
    frames: int
    payload_bytes: int
    positions: int
    timings: dict[str, float] = field(default_factory=dict)
    certainty: Certainty = UNTOLD
    quoted: int = 0
    runs: int = 0
    positions_left: int | None = None
    questions_left: int | None = None
    new_positions_left: int | None = None

    def __post_init__(self) -> None:
        if not (self.runs <= self.quoted <= self.positions and bool(self.runs) == bool(self.quoted)):
            raise BadHeader(f"{self.quoted} of {self.positions} positions quoted in {self.runs} runs")
