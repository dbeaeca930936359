"""Anything at all in place of what is due: decoders, messages, configurations, bundles and logs refuse it by name."""

from __future__ import annotations

import random
import re
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kvwire.errors import KvwireError, WireError
from ops.chaos.frames import Exchanges, intake_of
from ops.chaos.outcome import Ending, Tally

if TYPE_CHECKING:
    from ops.chaos.world import TinyWorld

PART: Final = "fuzz"
_SLOW_S: Final = 5.0
_TOKENS: Final = (
    *(
        "0",
        "-1",
        "1",
        "1e999",
        "-1e999",
        "nan",
        "99999999999999999999",
        "0.5",
        "true",
        "null",
        '""',
        "[]",
        "{}",
    ),
    *('"\\u0000"', '"\\ud800"', '"../../etc/passwd"', "[" * 600, '{"a":' * 600, '"' + "a" * 5_000 + '"'),
)
_OF_TEXT: Final = (*("token",) * 6, "flip", "cut", "put", "delete", "repeat")
_OF_BYTES: Final = ("flip", "flip", "cut", "put", "delete", "repeat", "extreme")


@dataclass(frozen=True)
class Target:
    """Something that takes bytes. `refuses`: what it may raise; anything else is a crash."""

    samples: Sequence[bytes]
    take: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...]
    text: bool = False


def mutated(chance: random.Random, target: Target) -> bytes:
    """Bytes out of nothing, or a sample changed in up to eight places."""
    sample = chance.choice(target.samples)
    if not target.text and chance.random() < 0.15:
        return chance.randbytes(chance.randint(0, 2 * len(sample) + 8))
    data = bytearray(sample)
    for _ in range(chance.randint(1, 8)):
        _mutate(chance, data, target.text)
    return bytes(data)


def _mutate(chance: random.Random, data: bytearray, text: bool) -> None:
    at = chance.randint(0, len(data))
    size = min(chance.choice((1, 1, 2, 4, 16, 64)), len(data) - at)
    how = chance.choice(_OF_TEXT if text else _OF_BYTES)
    if how == "token":
        values = list(re.finditer(rb'"[^"\n]*"|[-+.\w]+', bytes(data)))
        if values:
            begins, ends = chance.choice(values).span()
            data[begins:ends] = chance.choice(_TOKENS).encode()
    elif how == "flip" and at < len(data):
        data[at] ^= 1 << chance.randrange(8)
    elif how == "cut" and chance.random() < 0.3:
        del data[at:]
    elif how == "put":
        data[at:at] = chance.randbytes(max(1, size))
    elif how == "delete":
        del data[at : at + size]
    elif how == "repeat":
        data[at:at] = data[at : at + size]
    elif how == "extreme":
        data[at : at + size] = chance.choice((b"\0", b"\xff", b"\x80", b"\x7f")) * max(1, size)


def targets(world: TinyWorld, folder: Path) -> dict[str, Target]:
    """Every entry that takes what a peer, a person or a disk gives."""
    return {
        **dict(_codecs()),
        **_messages(world),
        **_files(world, folder),
    }


def _codecs() -> Iterable[tuple[str, Target]]:
    import torch

    from kvwire.codec import CodecRegistry
    from kvwire.segment import SegmentKind, SegmentSpec

    codecs = CodecRegistry()
    made = torch.Generator().manual_seed(7)
    specs = (
        SegmentSpec(0, SegmentKind.CODE, -1, (6, 24), "float32"),
        SegmentSpec(0, SegmentKind.KEY, 1, (2, 5, 16), "bfloat16"),
        SegmentSpec(0, SegmentKind.VALUE, 1, (1, 0, 16), "float16"),
    )
    for name in codecs.names():
        codec = codecs.get(name)
        for spec in specs:
            tensor = torch.randn(spec.shape, generator=made, device="cpu").to(getattr(torch, spec.dtype))

            def take(data: bytes, codec: object = codec, spec: SegmentSpec = spec) -> object:
                return codec.decode(data, spec)  # type: ignore[attr-defined]

            yield f"codec {name}, {spec.kind}", Target([codec.encode(tensor, spec)], take, (WireError,))


def _messages(world: TinyWorld) -> dict[str, Target]:
    from google.protobuf.message import DecodeError

    from kvwire import serde
    from kvwire.limits import Limits
    from kvwire.messages import Found, RelayReply, RelayRequest, SearchRequest
    from kvwire.v1 import sharer_pb2 as pb

    corpus, limits = Exchanges(world), Limits()
    exchanges = [exchange for row in corpus.rows for exchange in row[:2]]
    request = exchanges[0].request
    relay = RelayRequest(
        request_id=bytes(16), sharer=request.sharer, max_new_tokens=4, sections=request.sections
    )
    reply = RelayReply(bytes(16), "blue", 2, {"queue": 0.0, "prefill": 0.1, "encode": 0.0})
    found = (Found("keys", 1, 0.5),)
    description = world.replica.describe()
    refuses = (KvwireError, DecodeError)

    def take_reply(data: bytes) -> None:
        intake = intake_of(request, exchanges[0].bundle)
        intake.take(data)
        intake.end()

    def sample(proto: object) -> list[bytes]:
        return [proto.SerializeToString()]  # type: ignore[attr-defined]

    def taker(message: type, read: Callable[..., object], *more: object) -> Callable[[bytes], object]:
        return lambda data: read(message.FromString(data), *more)  # type: ignore[attr-defined]

    return {
        "reply to a share": Target([m for e in exchanges for m in e.messages], take_reply, (KvwireError,)),
        "share request": Target(
            [serde.share_request_to_proto(e.request).SerializeToString() for e in exchanges],
            taker(pb.ShareRequest, serde.share_request_from_proto, limits),
            refuses,
        ),
        "relay request": Target(
            sample(serde.relay_request_to_proto(relay)),
            taker(pb.RelayRequest, serde.relay_request_from_proto, limits),
            refuses,
        ),
        "search request": Target(
            sample(serde.search_request_to_proto(SearchRequest(question="Who?", k=3))),
            taker(pb.SearchRequest, serde.search_request_from_proto, limits),
            refuses,
        ),
        "relay reply": Target(
            sample(serde.relay_reply_to_proto(reply)),
            taker(pb.RelayResponse, serde.relay_reply_from_proto, limits),
            refuses,
        ),
        "found passages": Target(
            sample(serde.found_to_proto(found)),
            taker(pb.SearchResponse, serde.found_from_proto, 3, limits),
            refuses,
        ),
        "description": Target(
            sample(serde.description_to_proto(description)),
            taker(pb.DescribeResponse, serde.description_from_proto),
            refuses,
        ),
    }


def _files(world: TinyWorld, folder: Path) -> dict[str, Target]:
    from cloud_node.audit import AuditLog, AuditRecord, BrokenChain
    from cloud_node.audit_chain import verify
    from cloud_node.config import CloudConfig
    from edge_node import EdgeConfig
    from edge_node.channel import read_capture
    from fuser.bundle.bundle import Bundle
    from fuser.bundle.tensors import BadBundle
    from fuser.config import BadConfig
    from ops.commands.init import example

    bundle = folder / "bundle"
    shutil.copytree(world.cast.bundle, bundle)
    log = folder / "log.jsonl"
    audit = AuditLog(log)
    for _ in range(3):
        audit.append(AuditRecord(method="Share", tenant="acme", documents=("keys",)))
    audit.close()

    def file(name: str, load: Callable[[Path], object]) -> Callable[[bytes], object]:
        path = folder / name

        def take(data: bytes) -> object:
            path.write_bytes(data)
            return load(path)

        return take

    def in_bundle(name: str) -> Target:
        true = (bundle / name).read_bytes()

        def take(data: bytes) -> None:
            (bundle / name).write_bytes(data)
            try:
                Bundle.load(bundle)
            finally:
                (bundle / name).write_bytes(true)

        return Target([true], take, (BadBundle,), text=name.endswith(".json"))

    words = {"host": "localhost", "port": "7443", "plan": "codec"}
    edge, cloud = (example(f"{name}.toml", words).encode() for name in ("edge", "cloud"))
    capture = b"\x04\0\0\0\0abcd" + b"\x02\0\0\0\x01ef"
    return {
        "edge.toml": Target([edge], file("edge.toml", EdgeConfig.load), (BadConfig,), text=True),
        "cloud.toml": Target([cloud], file("cloud.toml", CloudConfig.load), (BadConfig,), text=True),
        "bundle config": in_bundle("config.json"),
        "bundle tensors": in_bundle("fuser.safetensors"),
        "audit log": Target([log.read_bytes()], file("audit.jsonl", verify), (BrokenChain,), text=True),
        "capture": Target([capture], file("capture", lambda path: list(read_capture(path))), (ValueError,)),
    }


def run(world: TinyWorld, seed: int, indices: Iterable[int], advance: Callable[[], None]) -> Tally:
    """The inputs of these numbers."""
    tally = Tally(PART)
    folder = world.folder / "fuzz"
    folder.mkdir()
    found = targets(world, folder)
    names = list(found)
    for index in indices:
        name = names[index % len(names)]
        data = mutated(random.Random(f"{seed}/{index}"), found[name])
        began = time.monotonic()
        ending, why = _ending(found[name], data)
        if (took := time.monotonic() - began) > _SLOW_S:
            ending, why = Ending.HANG, f"{took:.1f} s over {len(data)} bytes"
        tally.add(name, index, ending, why)
        advance()
    return tally


def _ending(target: Target, data: bytes) -> tuple[Ending, str]:
    """Refused by name is detected; what is taken is as good as what was sent."""
    try:
        target.take(data)
    except target.refuses as error:
        return Ending.DETECTED, type(error).__name__
    except Exception as error:
        return Ending.CRASH, f"{type(error).__name__}: {error}"[:200]
    return Ending.FUSED, ""
