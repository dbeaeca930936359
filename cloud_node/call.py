"""What gateway and replica say to each other: plain values that any process can read, never a tensor."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    tenant: str
    request: ShareRequest
    allowed: int | None


@dataclass(frozen=True, slots=True, repr=False)
class RelayCall:
    """A Relay request that the gateway let through.

    allowed: tokens of text that the export policy allows; None where it sets no bound.
    """

    tenant: str
    request: RelayRequest
    allowed: int | None
