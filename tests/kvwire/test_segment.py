from collections.abc import Iterable
from dataclasses import replace

import pytest

from kvwire.errors import BadHeader
from kvwire.segment import SegmentKind, SegmentSpec, SliceKind
from tests.kvwire.samples import excerpt_header, header_of, spec_of


def numbered(specs: Iterable[SegmentSpec]) -> tuple[SegmentSpec, ...]:
    return tuple(replace(spec, segment_id=place) for place, spec in enumerate(specs))


def test_positions_and_bytes_follow_from_the_shape() -> None:
    key, code = spec_of(SegmentKind.KEY, 3, "bfloat16"), spec_of(SegmentKind.CODE, 5)
    assert (key.positions, key.elements, key.raw_bytes) == (3, 24, 48)
    assert (code.positions, code.elements, code.raw_bytes) == (5, 40, 160)


@pytest.mark.parametrize(
    ("kind", "layer", "shape", "dtype"),
    [
        (SegmentKind.KEY, -1, (2, 3, 4), "float32"),
        (SegmentKind.KEY, 0, (2, 3), "float32"),
        (SegmentKind.KEY, 0, (0, 3, 4), "float32"),
        (SegmentKind.VALUE, 0, (2, -1, 4), "float32"),
        (SegmentKind.VALUE, 0, (2, 3, 2**25), "float32"),
        (SegmentKind.VALUE, 0, (2, 3, 4, 1), "float32"),
        (SegmentKind.VALUE, 2**20, (2, 3, 4), "float32"),
        (SegmentKind.CODE, 0, (3, 8), "float32"),
        (SegmentKind.CODE, -1, (3, 0), "float32"),
        (SegmentKind.CODE, -1, (3, 8), "float64"),
        (SegmentKind.CODE, -1, (3, 8), "object"),
    ],
)
def test_a_contradictory_spec_is_refused(
    kind: SegmentKind, layer: int, shape: tuple[int, ...], dtype: str
) -> None:
    with pytest.raises(BadHeader):
        SegmentSpec(0, kind, layer, shape, dtype)


def test_no_positions_are_allowed() -> None:
    assert spec_of(SegmentKind.KEY, 0).raw_bytes == 0
    assert header_of(positions=0).positions == 0


def test_a_shared_slice_counts_spans_and_tail() -> None:
    header = header_of(positions=3)
    assert (len(header.spans), header.tail, header.positions) == (2, 1, 3)
    with pytest.raises(BadHeader):
        replace(header, tail=2)
    with pytest.raises(BadHeader):
        replace(header, spans=((0, 2, 1), (0, 1, 2)))


def test_a_slice_with_every_gate_closed_has_positions_but_no_segments() -> None:
    assert replace(header_of(), specs=()).positions == 3


def test_an_excerpt_has_no_spans_and_no_tail() -> None:
    header = excerpt_header()
    assert header.positions == 12
    for change in ({"spans": ((0, 0, 1),)}, {"tail": 1}):
        with pytest.raises(BadHeader):
            replace(header, **change)


def test_segments_of_one_slice_are_different_and_of_equal_length() -> None:
    header = header_of()
    first = header.specs[0]
    for second in (
        replace(header.specs[1], segment_id=first.segment_id),
        replace(header.specs[1], segment_id=99),
        replace(first, segment_id=1),
        replace(header.specs[1], shape=(2, 4, 4)),
    ):
        with pytest.raises(BadHeader):
            replace(header, specs=(first, second))


def test_a_code_does_not_belong_into_a_shared_slice() -> None:
    with pytest.raises(BadHeader):
        replace(header_of(), specs=(spec_of(SegmentKind.CODE, 3),))


def test_a_request_digest_has_sixteen_bytes() -> None:
    with pytest.raises(BadHeader):
        replace(header_of(), request_digest=b"short")


def test_the_fingerprint_covers_every_field() -> None:
    header = header_of()
    changed = [
        replace(header, request_digest=bytes(16)),
        replace(header, specs=numbered(header.specs[::-1])),
        replace(header, specs=numbered(header.specs[1:])),
        replace(header, specs=numbered(replace(spec, dtype="bfloat16") for spec in header.specs)),
        replace(header, spans=((0, 0, 1), (0, 1, 3))),
        replace(header, spans=header.spans[:1], tail=2),
        replace(header, kind=SliceKind.EXCERPT, spans=(), tail=0),
    ]
    prints = [h.fingerprint() for h in [header, *changed]]
    assert len(set(prints)) == len(prints)
