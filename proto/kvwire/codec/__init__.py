"""Codecs: segment <-> bytes, a ladder of rungs from exact to smallest."""

from collections.abc import Iterable

from kvwire.codec.base import Codec, roundtrip
from kvwire.codec.exact import Lossless, Raw
from kvwire.codec.scalar import Hadamard, Int4, Int8
from kvwire.codec.transform import Basis, Transform
from kvwire.errors import Unsupported
from kvwire.messages import CodecRef

__all__ = [
    "Basis",
    "Codec",
    "CodecRegistry",
    "Hadamard",
    "Int4",
    "Int8",
    "Lossless",
    "Raw",
    "Transform",
    "roundtrip",
]

_HADAMARD_RATES = (4, 3, 2)


class CodecRegistry:
    """The codecs of one process by name: the built-in ones and those a bundle brings."""

    def __init__(self, extra: Iterable[Codec] = ()) -> None:
        built_in: tuple[Codec, ...] = (Raw(), Lossless(), Int8(), Int4(), *map(Hadamard, _HADAMARD_RATES))
        self._codecs = {codec.name: codec for codec in built_in}
        for codec in extra:
            if codec.name in self._codecs:
                raise ValueError(f"two codecs are named {codec.name!r}")
            self._codecs[codec.name] = codec

    def names(self) -> tuple[str, ...]:
        """Names, most exact first."""
        return tuple(self._codecs)

    def refs(self) -> tuple[CodecRef, ...]:
        """What a description says of them."""
        return tuple(CodecRef(codec.name, codec.parameters_hash) for codec in self._codecs.values())

    def get(self, name: str) -> Codec:
        """The codec of this name.

        Raises:
            Unsupported: there is none.
        """
        codec = self._codecs.get(name)
        if codec is None:
            raise Unsupported(f"codec {name[:100]!r}; known are {', '.join(self._codecs)}")
        return codec
