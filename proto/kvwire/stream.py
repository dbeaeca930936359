"""Payloads one after another in one stream of bytes, each behind its length, and told apart again."""

from collections.abc import Sequence
from typing import Final

from kvwire.errors import BadPayload, TooLarge

_LOW_BITS: Final = 0x7F
_MORE: Final = 0x80
_LENGTH_BYTES: Final = 5  # 35 bits: more than any payload may have


def length_of(payload: bytes) -> bytes:
    """What stands before a payload: how many bytes it has, as unsigned LEB128 (a varint of protobuf)."""
    length, left = bytearray(), len(payload)
    while left > _LOW_BITS:
        length.append(left & _LOW_BITS | _MORE)
        left >>= 7
    length.append(left)
    return bytes(length)


class PayloadStream:
    """Takes the payloads of a slice out of the data of its frames, which may end anywhere.

    Args:
        most: the most bytes of each payload, in order.
    """

    def __init__(self, most: Sequence[int]) -> None:
        self._most = most
        self._payloads = 0
        self._length: bytearray | None = bytearray()  # of the payload that is due, while it is read
        self._payload = bytearray()
        self._filled = 0

    def add(self, data: bytes) -> list[bytes]:
        """The payloads that these bytes complete.

        Raises:
            TooLarge: a payload is announced to be larger than it may be; nothing is allocated for it.
            BadPayload: there is something after the last payload, or a length is written in more bytes than it needs.
        """
        complete, at = [], 0
        while at < len(data):
            if self._payloads == len(self._most):
                raise BadPayload("bytes after the last segment")
            if self._length is not None:
                self._read_length(data[at])
                at += 1
            else:
                taken = data[at : at + len(self._payload) - self._filled]
                self._payload[self._filled : self._filled + len(taken)] = taken
                self._filled += len(taken)
                at += len(taken)
            if self._length is None and self._filled == len(self._payload):
                complete.append(bytes(self._payload))
                self._payloads += 1
                self._length, self._payload, self._filled = bytearray(), bytearray(), 0
        return complete

    def _read_length(self, byte: int) -> None:
        """Take one byte of a length; at its last the payload's memory is taken."""
        assert self._length is not None
        self._length.append(byte)
        if byte & _MORE:
            if len(self._length) == _LENGTH_BYTES:
                raise BadPayload("a length without end")
            return
        if byte == 0 and len(self._length) > 1:
            raise BadPayload("a length with bytes to spare")
        size = sum((part & _LOW_BITS) << 7 * i for i, part in enumerate(self._length))
        if size > self._most[self._payloads]:
            raise TooLarge("segment bytes", size, self._most[self._payloads])
        self._length, self._payload = None, bytearray(size)
