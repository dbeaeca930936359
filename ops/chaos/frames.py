"""Faults of messages, above TLS: the replies of a real replica, changed, and taken in by the edge as any reply is."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kvwire.errors import KvwireError, entry_of
from kvwire.messages import ShareRequest
from kvwire.plan import Plan
from kvwire.segment import Segment, SliceHeader, SliceKind, SliceTrailer
from kvwire.slice_io import Frame, SliceWriter
from ops.chaos.history import digest_of
from ops.chaos.outcome import Ending, Tally

if TYPE_CHECKING:
    from fuser.bundle.bundle import Bundle
    from ops.chaos.world import TinyWorld

PART: Final = "frames"
_PLANS: Final = (
    (SliceKind.EXCERPT, Plan(codec="raw", positions=8)),
    (SliceKind.EXCERPT, Plan(codec="lossless", positions=6)),
    (SliceKind.EXCERPT, Plan(codec="int8", positions=8, padded=True)),
    (SliceKind.DRAFT, Plan(codec="int4", positions=4)),
    (SliceKind.SHARED, Plan(codec="raw")),
    (SliceKind.SHARED, Plan(codec="int8", last=6)),
)


@dataclass(frozen=True)
class Exchange:
    """A request and its true reply, as messages.

    tensors: of the segments, decoded; taken: digests of what is taken in.
    """

    request: ShareRequest
    bundle: Bundle
    messages: tuple[bytes, ...]
    header: SliceHeader
    tensors: tuple[Any, ...]
    taken: tuple[str, ...]


class Exchanges:
    """Exchanges of a world. For each plan: two questions, the first one twice, and the first one of another bundle."""

    def __init__(self, world: TinyWorld) -> None:
        self._world = world
        self.rows: list[tuple[Exchange, Exchange, Exchange, Exchange]] = []
        for kind, plan in _PLANS:
            first, other = (self._exchange(kind, plan, number) for number in (0, 1))
            self.rows.append(
                (first, other, self._exchange(kind, plan, 0), self._exchange(kind, plan, 0, foreign=True))
            )

    def _exchange(self, kind: SliceKind, plan: Plan, number: int, foreign: bool = False) -> Exchange:
        request, bundle, parts = asyncio.run(self._world.cut(kind, plan, number, foreign))
        messages = tuple(map(_message, parts))
        taken, tensors = _taken(request, bundle, messages)
        (header, *_) = parts
        assert isinstance(header, SliceHeader)
        return Exchange(request, bundle, messages, header, tuple(tensors), tuple(taken))


def intake_of(request: ShareRequest, bundle: Bundle) -> Any:
    """What the edge takes the reply to this request in with."""
    from edge_node.intake import ReplyIntake
    from kvwire.codec import CodecRegistry
    from kvwire.limits import Limits
    from kvwire.slice_io import payload_codec

    codec = payload_codec(request.plan, CodecRegistry(bundle.codecs()).get(request.plan.codec))
    return ReplyIntake(request, range(len(request.sections)), bundle, codec, Limits())


def _taken(request: ShareRequest, bundle: Bundle, messages: Sequence[bytes]) -> tuple[list[str], list[Any]]:
    intake = intake_of(request, bundle)
    parts = [part for message in messages for part in intake.take(message)]
    intake.end()
    digests = [digest for part in parts if (digest := digest_of(part)) is not None]
    return digests, [part.tensor for part in parts if isinstance(part, Segment)]


def _message(part: SliceHeader | Frame | SliceTrailer) -> bytes:
    from kvwire.serde import share_response_to_proto

    return bytes(share_response_to_proto(part).SerializeToString())


Chance = random.Random
Row = tuple[Exchange, Exchange, Exchange, Exchange]
Messages = list[bytes]
Trick = Callable[[Chance, Row], Messages]


def _changed(chance: Chance, row: Row, change: Callable[[bytearray], bytes | bytearray]) -> Messages:
    messages = list(row[0].messages)
    at = chance.randrange(len(messages))
    messages[at] = bytes(change(bytearray(messages[at])))
    return messages


def _flip(bits: int) -> Trick:
    def trick(chance: Chance, row: Row) -> Messages:
        def change(data: bytearray) -> bytearray:
            for _ in range(bits):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            return data

        return _changed(chance, row, change)

    return trick


def _burst(chance: Chance, row: Row) -> Messages:
    def change(data: bytearray) -> bytearray:
        at = chance.randrange(len(data))
        size = min(chance.randint(2, 64), len(data) - at)
        data[at : at + size] = chance.randbytes(size)
        return data

    return _changed(chance, row, change)


def _cut(chance: Chance, row: Row) -> Messages:
    return _changed(chance, row, lambda data: data[: chance.randrange(len(data))])


def _grown(chance: Chance, row: Row) -> Messages:
    def change(data: bytearray) -> bytearray:
        at = chance.randint(0, len(data))
        data[at:at] = chance.randbytes(chance.randint(1, 16))
        return data

    return _changed(chance, row, change)


def _ended(chance: Chance, row: Row) -> Messages:
    return list(row[0].messages[: chance.randrange(len(row[0].messages))])


def _lost(chance: Chance, row: Row) -> Messages:
    messages = list(row[0].messages)
    del messages[chance.randrange(len(messages))]
    return messages


def _repeated(chance: Chance, row: Row) -> Messages:
    messages = list(row[0].messages)
    messages.insert(chance.randint(0, len(messages)), chance.choice(messages))
    return messages


def _swapped(chance: Chance, row: Row) -> Messages:
    messages = list(row[0].messages)
    one, two = chance.sample(range(len(messages)), 2)
    messages[one], messages[two] = messages[two], messages[one]
    return messages


def _shuffled(chance: Chance, row: Row) -> Messages:
    return chance.sample(row[0].messages, len(row[0].messages))


def _mixed(other: int) -> Trick:
    """Some messages of another reply in their places."""

    def trick(chance: Chance, row: Row) -> Messages:
        mine, theirs = row[0].messages, row[other].messages
        messages = [chance.choice(pair) for pair in zip(mine, theirs, strict=False)]
        at = chance.randrange(len(messages))
        messages[at] = theirs[at]
        return messages + list(mine[len(messages) :])

    return trick


def _whole(other: int) -> Trick:
    return lambda _, row: list(row[other].messages)


def _renamed(chance: Chance, row: Row) -> Messages:
    """Another question's reply under this request's header, its frames' checksums made anew for it."""
    mine, theirs = row[0], row[1]
    return [
        mine.messages[0],
        *_sealed(mine.header.request_digest, theirs),
        chance.choice([mine, theirs]).messages[-1],
    ]


def _frames_of(exchange: Exchange) -> list[Frame]:
    from kvwire.v1 import sharer_pb2 as pb

    replies = (pb.ShareResponse.FromString(message).frame for message in exchange.messages[1:-1])
    return [Frame(reply.sequence, reply.data, reply.checksum) for reply in replies]


def _sealed(digest: bytes, exchange: Exchange) -> Messages:
    return [_message(Frame.of(digest, f.sequence, f.data)) for f in _frames_of(exchange)]


def _forged(chance: Chance, exchange: Exchange, header: SliceHeader) -> Messages:
    """A reply of other values, of the same norm in each segment: made by the real writer, so with right checksums."""
    import torch

    from kvwire.codec import CodecRegistry
    from kvwire.limits import Limits
    from kvwire.slice_io import payload_codec

    codecs = CodecRegistry(exchange.bundle.codecs())
    plan = exchange.request.plan
    writer = SliceWriter(header, payload_codec(plan, codecs.get(plan.codec)), Limits(max_frame_bytes=256))
    parts: list[SliceHeader | Frame | SliceTrailer] = [header]
    for spec, tensor in zip(header.specs, exchange.tensors, strict=True):
        flat = tensor.flatten()
        order = list(range(len(flat)))
        chance.shuffle(order)
        mixed = flat[torch.tensor(order, dtype=torch.long, device="cpu")].reshape(tensor.shape)
        parts += writer.write(spec, mixed.contiguous())
    parts.append(writer.trailer({"queue": 0.0, "prefill": 0.0, "encode": 0.0}))
    return list(map(_message, parts))


def _forged_blind(chance: Chance, row: Row) -> Messages:
    """By who knows all but the request: it has a digest of its own making."""
    return _forged(chance, row[0], dataclasses.replace(row[0].header, request_digest=chance.randbytes(16)))


def _forged_beside(chance: Chance, row: Row) -> Messages:
    """Frames and trailer of such a reply behind the true header."""
    return [row[0].messages[0], *_forged_blind(chance, row)[1:]]


def _forged_frames(chance: Chance, row: Row) -> Messages:
    """By who reads the header too, and makes each frame's checksum anew; the trailer is the true one."""
    forged = _forged(chance, row[0], row[0].header)
    return [*forged[:-1], row[0].messages[-1]]


TRICKS: Final[Mapping[str, Trick]] = {
    "one bit flipped": _flip(1),
    "2 bits flipped": _flip(2),
    "8 bits flipped": _flip(8),
    "a burst of noise": _burst,
    "a message cut short": _cut,
    "bytes put in": _grown,
    "the stream ends early": _ended,
    "a message lost": _lost,
    "a message repeated": _repeated,
    "two messages swapped": _swapped,
    "all messages shuffled": _shuffled,
    "messages of another request": _mixed(1),
    "messages of an expired request": _mixed(2),
    "messages of another bundle": _mixed(3),
    "the reply to another request": _whole(1),
    "the reply to an expired request": _whole(2),
    "the reply of another bundle": _whole(3),
    "another reply, checksums made anew": _renamed,
    "values shuffled, request unknown": _forged_blind,
    "values shuffled, header known": _forged_beside,
    "values shuffled, frames resealed": _forged_frames,
}
"""What is done to a reply, by name. Without the TLS keys nobody gets so far; see `believed` for who has them."""


def draw(seed: int, index: int, corpus: Exchanges) -> tuple[str, Exchange, Messages]:
    """The fault of this number: its name, the exchange, and the messages that arrive."""
    chance = random.Random(f"{seed}/{index}")
    name = list(TRICKS)[index % len(TRICKS)]
    row = chance.choice(corpus.rows)
    messages = TRICKS[name](chance, row)
    if messages == list(row[0].messages):  # the same by chance: another draw, of the same index
        messages = list(row[0].messages[:-1])
    return name, row[0], messages


def ending(exchange: Exchange, messages: Sequence[bytes]) -> tuple[Ending, str]:
    """What the edge makes of messages in place of an exchange's true ones."""
    try:
        taken, _ = _taken(exchange.request, exchange.bundle, messages)
    except KvwireError as error:
        return Ending.DETECTED, entry_of(type(error)).reason
    except Exception as error:
        return Ending.CRASH, f"{type(error).__name__}: {error}"[:200]
    if tuple(taken) != exchange.taken:
        return Ending.WRONG, "other segments were taken in"
    return Ending.FUSED, ""


def run(world: TinyWorld, seed: int, indices: Iterable[int], advance: Callable[[], None]) -> Tally:
    """The faults of these numbers."""
    corpus, tally = Exchanges(world), Tally(PART)
    for index in indices:
        name, exchange, messages = draw(seed, index, corpus)
        tally.add(name, index, *ending(exchange, messages))
        advance()
    return tally


def believed(world: TinyWorld, seed: int, times: int) -> int:
    """How many of so many lies are taken in that nothing can tell: by who holds the cloud's key, told consistently."""
    corpus = Exchanges(world)
    took = 0
    for index in range(times):
        chance = random.Random(f"{seed}/lie/{index}")
        exchange = chance.choice(corpus.rows)[0]
        took += ending(exchange, _forged(chance, exchange, exchange.header))[0] in (
            Ending.WRONG,
            Ending.FUSED,
        )
    return took
