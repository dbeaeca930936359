"""One call: what gateway and replica say to each other (plain values, never a tensor), and its record for the audit."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from cloud_node.audit import LOST, MENDED, SENDING, SERVED, AuditRecord
from kvwire.errors import CATALOGUE, KvwireError, entry_of
from kvwire.messages import RelayRequest, ShareRequest
from kvwire.segment import SliceHeader, SliceTrailer
from kvwire.slice_io import Frame

Part = SliceHeader | Frame | SliceTrailer


@dataclass(frozen=True, slots=True, repr=False)
class ShareCall:
    """A Share request that the gateway let through.

    tenant: who asks, from the verified certificate.
    request: as sent. It names documents by id; only the replica reads their text.
    allowed: positions of the slice that the export policy allows; None where it sets no bound.
    left: positions of its documents that may leave today for who asks; None where there is no bound.
    """

    tenant: str
    request: ShareRequest
    allowed: int | None
    left: int | None = None


@dataclass(frozen=True, slots=True)
class Quoting(SliceHeader):
    """A header as a replica hands it to its gateway, with what is never sent: where in the documents it quotes.

    quoted: of each position that was chosen in a document: the section that names it, and characters [begins, ends) of
    the whole document.
    """

    quoted: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class RelayCall:
    """A Relay request that the gateway let through.

    allowed: tokens of text that the export policy allows; None where it sets no bound.
    """

    tenant: str
    request: RelayRequest
    allowed: int | None


REASONS = frozenset(entry.reason for entry in CATALOGUE.values()) | {SERVED, SENDING, MENDED, LOST}
"""Everything `decision` can be."""


@dataclass
class CallRecord:
    """What is known so far of one call."""

    method: str
    tenant: str = ""
    request_id: bytes = b""
    documents: tuple[str, ...] = ()
    kind: str = ""
    positions: int = 0
    segments: int = 0
    bytes: int = 0
    decision: str = SERVED
    left: bool = False
    """Whether a slice or a text may have left: its line is written."""
    started: float = field(default_factory=time.monotonic)
    _announced: int = 0

    def announced(self, header: SliceHeader) -> None:
        """The slice that will leave."""
        self.positions, self._announced = header.positions, len(header.specs)

    def leaving(self) -> AuditRecord:
        """The line to write before anything leaves."""
        self.left = True
        return replace(self.line(), decision=SENDING)

    def sent(self, part: Part) -> None:
        """Count a part that is handed to the transport; how much of it a caller takes is not known here."""
        if isinstance(part, Frame):
            self.bytes += len(part.data)
        elif isinstance(part, SliceTrailer):
            self.segments = self._announced

    def failed(self, error: KvwireError) -> None:
        """The call ends with this error."""
        self.decision = entry_of(type(error)).reason

    def line(self) -> AuditRecord:
        """The line of the audit log, as far as the call has come."""
        return AuditRecord(
            method=self.method,
            tenant=self.tenant,
            request_id=self.request_id.hex(),
            documents=self.documents,
            kind=self.kind,
            positions=self.positions,
            segments=self.segments,
            bytes=self.bytes,
            decision=self.decision,
            seconds=time.monotonic() - self.started,
        )
