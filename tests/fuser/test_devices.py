"""No step of an answer makes a tensor on a default device: with another default, every bit is as it was."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fuser import Bundle, Receiver, Sharer, load_pair
from fuser.slice_specs import SliceLayout
from kvwire.codec import CodecRegistry
from kvwire.plan import WHOLE, Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import Segment, SegmentSpec, SliceKind

DOCUMENT = Section(Role.DOCUMENT, Visibility.CLOUD, text="The spare key lies under the third stone. " * 2)
WITHHELD = Section(Role.DOCUMENT, Visibility.CLOUD, document_id="note-1")
QUESTION = Section(Role.QUESTION, Visibility.SHARED, text="Who keeps the key? 谁有钥匙 ✅")


@pytest.fixture(scope="module")
def pair(tiny_bundle: Path, tiny_sharer: Path, tiny_receiver: Path) -> tuple[Sharer, Receiver]:
    return load_pair(tiny_bundle, sharer=tiny_sharer, receiver=tiny_receiver, device="cpu", dtype="float32")


def answered(
    pair: tuple[Sharer, Receiver], kind: SliceKind, codec: str, plan: Plan = WHOLE
) -> tuple[list[Tensor], list[bytes], str]:
    """The cache before the answer, the payloads and the text: read, cut, encoded, decoded, fused, generated."""
    sharer, receiver = pair
    coder = CodecRegistry(sharer.bundle.codecs()).get(codec)
    excerpt = kind is SliceKind.EXCERPT
    cut = sharer.layout([DOCUMENT, QUESTION] if excerpt else [QUESTION], kind, 8, plan)
    prefilled = receiver.begin([WITHHELD, QUESTION] if excerpt else [QUESTION]).prefill(kind)
    intake = prefilled.take(SliceLayout.of(cut), plan)
    payloads: list[bytes] = []

    def emit(spec: SegmentSpec, tensor: Tensor) -> None:
        payloads.append(coder.encode(tensor, spec))
        intake.add(Segment(spec, coder.decode(payloads[-1], spec)))

    sharer.run(cut, emit)
    halves = [half.clone() for layer in intake.done().past.layers for half in layer]
    return halves, payloads, "".join(prefilled.generate(6))


@contextlib.contextmanager
def default_device(name: str) -> Iterator[None]:
    before = torch.get_default_device()
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(before)


CODECS = ("raw", "lossless", "int8", "int4", "hadamard-3")
CASES = [(kind, codec, WHOLE) for kind in SliceKind for codec in CODECS]
CASES += [
    (SliceKind.SHARED, "raw", Plan(codec="raw", **dials)) for dials in ({"last": 2}, {"bottleneck": True})
]


@pytest.mark.parametrize(("kind", "codec", "plan"), CASES)
def test_an_answer_has_the_same_bits_whatever_the_default_device_is(
    pair: tuple[Sharer, Receiver], kind: SliceKind, codec: str, plan: Plan
) -> None:
    expected = answered(pair, kind, codec, plan)
    pair[1].prefix_cache = type(pair[1].prefix_cache)(1 << 20)  # nothing is left over from before
    with default_device("meta"):
        halves, payloads, text = answered(pair, kind, codec, plan)
    assert payloads == expected[1] and text == expected[2]
    assert len(halves) == len(expected[0])
    assert all(torch.equal(one, other) for one, other in zip(halves, expected[0], strict=True))


def test_a_pair_is_loaded_whatever_the_default_device_is(
    tiny_bundle: Path, tiny_sharer: Path, tiny_receiver: Path, pair: tuple[Sharer, Receiver]
) -> None:
    with default_device("meta"):
        loaded = load_pair(
            tiny_bundle, sharer=tiny_sharer, receiver=tiny_receiver, device="cpu", dtype="float32"
        )
        assert Bundle.load(tiny_bundle).hash == pair[0].bundle.hash
    expected, found = (answered(one, SliceKind.EXCERPT, "raw") for one in (pair, loaded))
    assert found[1:] == expected[1:]
