"""What the cloud sends, checked before it is used: the slice asked for, of the right shapes, unchanged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from kvwire import serde
from kvwire.errors import BadHeader, BadPayload, TooLarge
from kvwire.limits import Limits
from kvwire.messages import ShareRequest, check_header
from kvwire.plan import Plan
from kvwire.segment import Segment, SliceHeader, SliceKind, SliceTrailer
from kvwire.slice_io import Frame, SliceAssembler
from kvwire.v1 import sharer_pb2 as pb

if TYPE_CHECKING:
    from fuser import Bundle
    from kvwire.codec import Codec

Part = SliceHeader | Segment | SliceTrailer


class Intake:
    """Takes the messages of one Share reply in order. Not thread-safe; meant to run off the event loop.

    Args:
        request: as it was sent.
        codec: the one asked for, padded if that was.
        places: index of each of the request's sections in the caller's list, which spans are made to name.
        device: where segments are put.
    """

    def __init__(
        self,
        request: ShareRequest,
        places: Sequence[int],
        bundle: Bundle,
        codec: Codec,
        limits: Limits,
        device: str = "cpu",
    ) -> None:
        self._request = request
        self._places = tuple(places)
        self._bundle = bundle
        self._codec = codec
        self._limits = limits
        self._device = device
        self._assembler: SliceAssembler | None = None
        self._finished = False

    def take(self, message: bytes) -> Sequence[Part]:
        """One serialised ShareResponse: the header, the segments that it completed, or the trailer.

        Raises:
            WireError: the slice cannot be used.
        """
        try:
            part = serde.share_response_from_proto(pb.ShareResponse.FromString(message), self._limits)
            return self._take(part)
        except DecodeError as error:
            raise BadHeader("a message that is no ShareResponse") from error
        except TooLarge as error:  # the cloud's doing, not the caller's
            raise BadPayload(error.detail) from error

    @property
    def arrived(self) -> float:
        """Share of the slice that arrived and decoded, 0 to 1."""
        return self._assembler.partial() if self._assembler else 0.0

    @property
    def payload_bytes(self) -> int:
        """Bytes of segments taken in."""
        return self._assembler.payload_bytes if self._assembler else 0

    def end(self) -> None:
        """The stream is over.

        Raises:
            BadPayload: before its trailer.
        """
        if not self._finished:
            raise BadPayload("the slice ended without a trailer")

    def _take(self, part: SliceHeader | Frame | SliceTrailer) -> Sequence[Part]:
        if self._finished:
            raise BadPayload("a message after the trailer")
        if isinstance(part, SliceHeader):
            if self._assembler is not None:
                raise BadPayload("a second header")
            check_header(part, self._request)
            check_specs(part, self._bundle, self._request.plan)
            self._assembler = SliceAssembler(
                part, self._codec, self._limits, self._device, self._request.max_bytes
            )
            spans = tuple((self._places[section], start, end) for section, start, end in part.spans)
            return [dataclasses.replace(part, spans=spans)]
        if self._assembler is None:
            raise BadPayload("a slice without a header")
        if isinstance(part, Frame):
            return self._assembler.add(part)
        self._assembler.finish(part)
        self._finished = True
        return [part]


def check_specs(header: SliceHeader, bundle: Bundle, plan: Plan) -> None:
    """Compare the segments a header announces with those that the bundle and the plan give.

    Raises:
        BadHeader: others, in another order, or of other shapes.
    """
    from fuser.slice_specs import most_positions, slice_specs

    shared = header.kind is SliceKind.SHARED
    if not shared and header.positions > most_positions(bundle, plan, header.kind):
        raise BadHeader("more positions than this bundle makes")
    dtype = header.specs[0].dtype if header.specs else "float32"
    if header.specs != slice_specs(bundle, header.kind, plan, header.positions, dtype):
        raise BadHeader("other segments than were asked for")
