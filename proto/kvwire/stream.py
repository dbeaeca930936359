"""Payloads one after another in one stream of bytes, each behind its length, and told apart again."""

from collections.abc import Sequence
from typing import Final

from kvwire.errors import BadPayload, TooLarge

_LOW_BITS: Final = 0x7F
_MORE: Final = 0x80
_LENGTH_BYTES: Final = 5  # 35 bits: more than any payload may have


def length_bytes(size: int) -> bytes:
    """What stands before a payload of so many bytes: an unsigned LEB128, which is a varint of protobuf."""
    length = bytearray()
    while size > _LOW_BITS:
        length.append(size & _LOW_BITS | _MORE)
        size >>= 7
    length.append(size)
    return bytes(length)


class PayloadStream:
    """Takes the payloads of a slice out of the data of its frames, which may end anywhere.

    Args:
        most: the most bytes of each payload, in order.
    """

    def __init__(self, most: Sequence[int]) -> None:
        self._most = most
        self._payloads = 0
        self._size: int | None = None  # of the payload that is due; None while its length is read
        self._buffer = bytearray()  # what has come of the length, then of the payload

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
            if self._size is None:
                self._buffer.append(data[at])
                at += 1
                self._size = self._size_read()
                if self._size is None:
                    continue
                self._buffer.clear()
            taken = data[at : at + self._size - len(self._buffer)]
            self._buffer += taken
            at += len(taken)
            if len(self._buffer) == self._size:
                complete.append(bytes(self._buffer))
                self._payloads += 1
                self._size, self._buffer = None, bytearray()
        return complete

    def _size_read(self) -> int | None:
        """The payload's size, once its whole length is in the buffer."""
        length, last = self._buffer, self._buffer[-1]
        if last & _MORE:
            if len(length) == _LENGTH_BYTES:
                raise BadPayload("a length without end")
            return None
        if last == 0 and len(length) > 1:
            raise BadPayload("a length with bytes to spare")
        size = sum((part & _LOW_BITS) << 7 * i for i, part in enumerate(length))
        if size > self._most[self._payloads]:
            raise TooLarge("segment bytes", size, self._most[self._payloads])
        return size
