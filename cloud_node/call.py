"""What gateway and replica say to each other: plain values that any process can read, never a tensor."""

from __future__ import annotations

from dataclasses import dataclass

from kvwire.frame import Frame
from kvwire.request import RelayRequest, ShareRequest
from kvwire.segment import SliceHeader, SliceSummary

Part = SliceHeader | Frame | SliceSummary


@dataclass(frozen=True, slots=True, repr=False)
class ShareCall:
    """A Share request that the gateway let through.

    tenant: who asks, from the verified certificate.
    request: as sent. It names documents by id; only the replica reads their text.
    max_positions: excerpt positions that the export policy allows.
    """

    tenant: str
    request: ShareRequest
    max_positions: int


@dataclass(frozen=True, slots=True, repr=False)
class RelayCall:
    """A Relay request that the gateway let through."""

    tenant: str
    request: RelayRequest
