"""The handshake: the first value that differs is named, with both values."""

from dataclasses import replace

import pytest

from kvwire.errors import BadHeader, IncompatiblePeer, TooLarge
from kvwire.identity import ModelRef
from kvwire.messages import (
    BundleRef,
    CodecRef,
    RelayRequest,
    check_header,
    check_request,
    check_versions,
)
from kvwire.plan import Plan
from kvwire.segment import SliceKind
from tests.kvwire.samples import RECEIVER, SHARER, description_of, excerpt_header, header_of, request_of


def test_equal_peers_agree() -> None:
    check_request(request_of(), description_of())
    check_request(request_of(SliceKind.EXCERPT, "int8"), description_of())
    check_header(header_of(), request_of())
    check_header(excerpt_header(), request_of(SliceKind.EXCERPT))


@pytest.mark.parametrize(
    ("change", "cloud", "edge"),
    [
        ({"protocol_version": 1}, "8", "1"),
        ({"sharer": ModelRef("qwen", "other-revision")}, "a" * 64, "other-revision"),
        ({"sharer": ModelRef("llama", "a" * 64)}, "qwen@", "llama@"),
        ({"bundle_hash": "other-bundle"}, "c" * 64, "other-bundle"),
        ({"plan": Plan(codec="int3")}, "raw, lossless, int8", "int3"),
        ({"codec_hash": "other-parameters"}, "0c05fe4941bab785", "other-parameters"),
    ],
)
def test_a_difference_is_named_with_both_values(change: dict[str, object], cloud: str, edge: str) -> None:
    with pytest.raises(IncompatiblePeer) as caught:
        check_request(replace(request_of(), **change), description_of())
    assert cloud in caught.value.cloud
    assert edge in caught.value.edge
    assert cloud in str(caught.value)
    assert edge in str(caught.value)


def test_a_kind_that_the_bundle_does_not_make_is_named_with_those_it_does() -> None:
    offered = description_of()
    (bundle,) = offered.bundles
    with pytest.raises(IncompatiblePeer) as caught:
        check_request(
            request_of(SliceKind.EXCERPT),
            replace(offered, bundles=(replace(bundle, kinds=(SliceKind.SHARED,)),)),
        )
    assert (caught.value.cloud, caught.value.edge) == ("shared", "excerpt")


def test_a_codec_of_a_bundle_serves_that_bundle_alone() -> None:
    first, second = (
        BundleRef(name * 64, RECEIVER, (SliceKind.EXCERPT,), (CodecRef("transform-2", f"bases of {name}"),))
        for name in "cd"
    )
    offer = replace(
        description_of(), bundles=(first, second, BundleRef("e" * 64, RECEIVER, (SliceKind.EXCERPT,)))
    )
    asked = replace(request_of(SliceKind.EXCERPT), plan=Plan(codec="transform-2"), codec_hash="bases of c")
    check_request(asked, offer)
    check_request(replace(asked, bundle_hash="d" * 64, codec_hash="bases of d"), offer)
    with pytest.raises(IncompatiblePeer, match="parameters of codec transform-2"):
        check_request(replace(asked, bundle_hash="d" * 64), offer)
    with pytest.raises(IncompatiblePeer, match="codec"):
        check_request(replace(asked, bundle_hash="e" * 64), offer)


def test_a_relay_request_is_checked_for_version_and_sharer() -> None:
    sections, request_id = request_of().sections, request_of().request_id
    relay = RelayRequest(request_id=request_id, sharer=SHARER, max_new_tokens=4, sections=sections)
    check_request(relay, description_of())
    with pytest.raises(IncompatiblePeer):
        check_request(replace(relay, sharer=ModelRef("other", "x")), description_of())


@pytest.mark.parametrize(
    "change",
    [
        {"sharer": ModelRef("The secret is 42", "a" * 64)},
        {"bundle_hash": "The secret is 42"},
        {"plan": Plan(codec="The secret is 42")},
        {"codec_hash": "The secret is 42"},
    ],
)
def test_a_slice_made_with_something_else_than_was_asked_for_is_refused(change: dict[str, object]) -> None:
    other = replace(request_of(), **change)
    with pytest.raises(BadHeader, match="another request"):
        check_header(replace(header_of(), request_digest=other.digest()), request_of())


def test_the_header_of_another_request_is_refused() -> None:
    with pytest.raises(BadHeader):
        check_header(replace(header_of(), request_digest=bytes(16)), request_of())
    with pytest.raises(BadHeader):
        check_header(excerpt_header(), request_of())


def test_more_positions_than_asked_for_are_refused() -> None:
    with pytest.raises(TooLarge):
        check_header(excerpt_header(positions=13), request_of(SliceKind.EXCERPT))


def test_as_many_positions_as_may_be_are_no_cap_and_the_last_ones_are() -> None:
    whole = replace(request_of(SliceKind.EXCERPT), plan=Plan(codec="raw"))
    check_header(replace(excerpt_header(positions=200), request_digest=whole.digest()), whole)
    for last, positions in ((0, 9), (3, 3), (3, 2)):
        asked = replace(request_of(), plan=Plan(codec="raw", last=last))
        check_header(replace(header_of(positions=positions), request_digest=asked.digest()), asked)
    asked = replace(request_of(), plan=Plan(codec="raw", last=2))
    with pytest.raises(TooLarge):
        check_header(replace(header_of(positions=3), request_digest=asked.digest()), asked)


@pytest.mark.parametrize("span", [(1, 0, 1), (2, 0, 0), (0, 0, 15)])
def test_a_span_outside_the_shared_text_is_refused(span: tuple[int, int, int]) -> None:
    with pytest.raises(BadHeader):
        check_header(replace(header_of(), spans=((0, 0, 1), span)), request_of())


@pytest.mark.parametrize("count", [0, 2])
def test_a_header_or_a_text_without_one_version_for_each_document_is_refused(count: int) -> None:
    versions = ("0" * 32,) * count
    with pytest.raises(BadHeader, match=f"{count} versions of 1 documents"):
        check_header(replace(header_of(), versions=versions), request_of())
    with pytest.raises(BadHeader, match=f"{count} versions of 1 documents"):
        check_versions(versions, request_of())
