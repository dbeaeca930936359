"""Every cap of the wire in one place, and the cap of the system on connections."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from kvwire.errors import DeadlineExceeded, InvalidRequest, MissingDeadline, TooLarge
from kvwire.section import Role, Section
from kvwire.segment import SliceHeader

MIB = 1 << 20
PING_S = 30.0
"""How often an edge pings an idle connection: no cloud may ask for less often."""
MAX_TOKEN_CHARS = 8_192
"""Of the token that names a user."""
METADATA_OPTIONS = (("grpc.max_metadata_size", 16_384), ("grpc.absolute_max_metadata_size", 16_384))
"""Of server and channel alike. gRPC's default soft limit is 8 KiB, its hard limit 16 KiB, and between the two it
refuses at random."""
_NO_DEADLINE_S = 100_000_000 * 3_600.0
"""A deadline on the wire has at most eight digits of hours; gRPC reports a call without one as None or as later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Caps that both sides hold to; the cloud's are told in Describe.

    Characters are Unicode code points, bytes are on the wire unless said, deadlines are seconds.
    """

    max_frame_bytes: int = MIB
    max_message_bytes: int = 8 * MIB
    max_request_bytes: int = 256 * 1024
    max_sections: int = 32
    max_section_chars: int = 65_536
    max_question_chars: int = 8_192
    max_prompt_chars: int = 262_144
    """Of all sections of a prompt together, documents included: known before any of them is read."""
    max_document_id_chars: int = 256
    max_positions: int = 8_192
    max_segments: int = 1_024
    max_slice_bytes: int = 512 * MIB
    """Of all segments together, decoded."""
    max_new_tokens: int = 512
    max_found: int = 16
    """Passages of one search; a request can name as many, and a question beside them (`max_sections`)."""
    min_deadline_s: float = 0.05
    max_deadline_s: float = 120.0
    min_ping_interval_s: float = 10.0
    """Of HTTP/2 pings over an idle connection; who pings oftener is cut off."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{field.name} must be a positive number, not {value!r}")
        if self.max_frame_bytes + 1_024 > self.max_message_bytes:
            raise ValueError("max_message_bytes must leave room for a frame and its fields")
        if self.min_deadline_s > self.max_deadline_s:
            raise ValueError("min_deadline_s is over max_deadline_s")
        if self.min_ping_interval_s > PING_S:
            raise ValueError(f"min_ping_interval_s is at most {PING_S:g}, as often as every edge pings")

    def check_sections(self, sections: Sequence[Section]) -> None:
        """Refuse too many or too long sections.

        Raises:
            TooLarge: names what is over which limit.
        """
        _check("sections", len(sections), self.max_sections)
        for section in sections:
            if section.document_id is not None:
                _check("document id characters", len(section.document_id), self.max_document_id_chars)
            elif section.text is not None and section.role is Role.QUESTION:
                _check("question characters", len(section.text), self.max_question_chars)
            elif section.text is not None:
                _check("section characters", len(section.text), self.max_section_chars)

    def check_prompt(self, characters: int) -> None:
        """Refuse a prompt by the characters of all its sections, before any is read or tokenised.

        Raises:
            TooLarge: there are too many. It does not tell how many: that would tell a document's length.
        """
        _check("prompt characters", min(characters, self.max_prompt_chars + 1), self.max_prompt_chars)

    def check_slice(self, header: SliceHeader) -> None:
        """Refuse a slice that would take too much memory, before any of it is allocated.

        Raises:
            TooLarge: names what is over which limit.
        """
        _check("segments", len(header.specs), self.max_segments)
        _check("positions", header.positions, self.max_positions)
        _check("slice bytes", header.raw_bytes, self.max_slice_bytes)

    def checked_deadline(self, remaining_s: float | None) -> float:
        """The seconds a call may take, from `context.time_remaining()`, cut to `max_deadline_s`.

        Raises:
            MissingDeadline: the call has none.
            DeadlineExceeded: there is too little time to begin.
            InvalidRequest: it is no number.
        """
        if remaining_s is None or remaining_s > _NO_DEADLINE_S:
            raise MissingDeadline
        if math.isnan(remaining_s):
            raise InvalidRequest("a deadline that is no number")
        if remaining_s < self.min_deadline_s:
            raise DeadlineExceeded(f"{remaining_s:.3f} s to the deadline, {self.min_deadline_s} s are needed")
        return min(remaining_s, self.max_deadline_s)


def _check(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(what, size, limit)


def raise_descriptors() -> None:
    """As many as the system lets this process have: half-open connections must not keep callers out."""
    import resource  # Unix alone has it

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
