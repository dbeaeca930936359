import math
from dataclasses import replace
from typing import Any

import pytest

from kvwire import serde
from kvwire.errors import BadHeader, InvalidRequest, KvwireError, TooLarge
from kvwire.limits import Limits
from kvwire.messages import CodecRef, Found, RelayReply, RelayRequest, SearchRequest
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import Certainty, SegmentKind, SegmentSpec, SliceKind, SliceTrailer
from kvwire.slice_io import SliceWriter
from kvwire.v1 import sharer_pb2 as pb
from tests.kvwire.samples import (
    CODECS,
    FULL_PLAN,
    REQUEST_ID,
    SHARER,
    VERSIONS,
    description_of,
    excerpt_header,
    header_of,
    request_of,
    spec_of,
    tensor_of,
    written,
)

LIMITS = Limits()


@pytest.mark.parametrize("kind", list(SliceKind))
def test_a_request_survives(kind: SliceKind) -> None:
    data = serde.share_request_to_proto(request_of(kind)).SerializeToString()
    assert serde.share_request_from_proto(pb.ShareRequest.FromString(data), LIMITS) == request_of(kind)


@pytest.mark.parametrize(
    ("kind", "plan"),
    [
        (SliceKind.SHARED, FULL_PLAN),
        (SliceKind.EXCERPT, Plan(codec="int8", positions=8, code_dim=64, padded=True)),
        (SliceKind.EXCERPT, Plan(codec="x" * 256, positions=2**32 - 1)),
        (SliceKind.DRAFT, Plan(codec="raw", positions=3, quoted=4, runs=1)),
    ],
)
def test_a_plan_and_a_cap_survive(kind: SliceKind, plan: Plan) -> None:
    request = replace(request_of(kind), plan=plan, max_bytes=2**40)
    data = serde.share_request_to_proto(request).SerializeToString()
    read = serde.share_request_from_proto(pb.ShareRequest.FromString(data), LIMITS)
    assert read == request and read.digest() == request.digest()


def test_passages_survive_and_none_is_named_twice() -> None:
    request = request_of(SliceKind.EXCERPT)
    question, document = request.sections
    named = (
        question,
        *(replace(document, passage=n) for n in (7, 2**32 - 1)),
        replace(document, document_id="b"),
    )
    message = serde.share_request_to_proto(replace(request, sections=named))
    assert serde.share_request_from_proto(message, LIMITS).sections == named
    for twice in (
        (document, document),
        (named[1], named[1]),
        (document, named[1]),
        (named[1], named[2], document),
    ):
        with pytest.raises(InvalidRequest, match="once"):
            replace(request, sections=(question, *twice))


def test_a_search_and_what_it_finds_survive() -> None:
    request = SearchRequest(question="Where is the 图书馆?", k=LIMITS.max_found)
    message = pb.SearchRequest.FromString(serde.search_request_to_proto(request).SerializeToString())
    assert serde.search_request_from_proto(message, LIMITS) == request
    found = (Found("a", 1, 1.0), Found("a", 2, 0.7), Found("b", 2**32 - 1, 0.0))
    reply = pb.SearchResponse.FromString(serde.found_to_proto(found).SerializeToString())
    assert serde.found_from_proto(reply, 3, LIMITS) == found


@pytest.mark.parametrize(
    ("field", "error"),
    [
        ({"k": 0}, InvalidRequest),
        ({"k": LIMITS.max_found + 1}, TooLarge),
        ({"question": " \n"}, InvalidRequest),
        ({"question": "w" * (LIMITS.max_question_chars + 1)}, TooLarge),
    ],
)
def test_a_search_that_asks_for_nothing_or_too_much_is_refused(
    field: dict[str, Any], error: type[Exception]
) -> None:
    message = pb.SearchRequest(**({"protocol_version": 6, "question": "Where?", "k": 1} | field))
    with pytest.raises(error):
        serde.search_request_from_proto(message, LIMITS)


@pytest.mark.parametrize(
    "passages",
    [
        [("a", 0, 0.5)],
        [("", 1, 0.5)],
        [("a", 1, 1.1)],
        [("a", 1, -0.1)],
        [("a", 1, float("nan"))],
        [("a", 1, 0.5), ("a", 1, 0.4)],
        [("a" * 257, 1, 0.5)],
        [("a", n, 0.5) for n in range(1, 5)],
    ],
)
def test_found_passages_that_cannot_be_are_refused(passages: list[tuple[str, int, float]]) -> None:
    message = pb.SearchResponse(
        passages=[pb.Found(document_id=d, passage=p, score=s) for d, p, s in passages]
    )
    with pytest.raises((BadHeader, TooLarge)):
        serde.found_from_proto(message, 3, LIMITS)


def test_the_digest_of_a_request_covers_every_field() -> None:
    request = replace(request_of(), plan=FULL_PLAN)
    question, document = request.sections
    changed = [
        replace(request, protocol_version=1),
        replace(request, request_id=bytes(16)),
        replace(request, sharer=replace(SHARER, name="other")),
        replace(request, sharer=replace(SHARER, revision="other")),
        replace(request, bundle_hash="other"),
        replace(request, codec_hash="other"),
        replace(request, max_bytes=1),
        replace(request, sections=(document, question)),
        replace(request, sections=(replace(question, text="?"), document)),
        replace(request, sections=(replace(question, role=Role.SYSTEM), document)),
        replace(request, sections=(question, replace(document, document_id="note-2"))),
        replace(request, sections=(question, replace(document, passage=3))),
        replace(request, kind=SliceKind.EXCERPT, plan=Plan(codec="raw")),
        *(
            replace(request, kind=SliceKind.DRAFT, plan=Plan(codec="raw", **change))
            for change in ({}, {"code_dim": 1}, {"positions": 1}, {"quoted": 1}, {"runs": 1})
        ),
        *(
            replace(request, plan=replace(FULL_PLAN, **change))
            for change in (
                {"codec": "other"},
                {"layers": (0,)},
                {"last": 8},
                {"bottleneck": False},
                {"padded": False},
            )
        ),
    ]
    digests = {other.digest() for other in (request, *changed)}
    assert len(digests) == 1 + len(changed) and {len(digest) for digest in digests} == {16}


@pytest.mark.parametrize(
    ("positions", "numbers"), [(1, 100), (1, 512), (16, 512), (30, 512), (127, 128), (130, 120)]
)
def test_beside_its_payload_an_excerpt_costs_what_the_specification_says(
    positions: int, numbers: int
) -> None:
    code = SegmentSpec(0, SegmentKind.CODE, -1, (positions, numbers), "float32")
    header = replace(excerpt_header(), specs=(code,))
    writer = SliceWriter(header, CODECS.get("int8"), Limits())
    (frame,) = writer.write(code, tensor_of(code))
    timings = {"queue": 0.25, "prefill": 1.5, "encode": 0.25}
    summary = writer.trailer(timings, Certainty(-1.0 - positions / 8, 1.5), quoted=positions, runs=1)
    bound = replace(summary, positions_left=2**32, questions_left=2**32, new_positions_left=2**32)
    first, framed, end = (serde.share_response_to_proto(part).ByteSize() for part in (header, frame, summary))
    assert 54 <= first <= 56 and 52 <= end <= 56
    assert 13 <= framed - len(frame.data) <= (15 if len(frame.data) < 16_000 else 17)
    assert len(frame.data) - summary.payload_bytes <= 2 + (summary.payload_bytes > 16_383)
    assert serde.share_response_to_proto(bound).ByteSize() - end <= 18
    assert summary.payload_bytes > 16_000 or first + framed + end - summary.payload_bytes <= 129


@pytest.mark.parametrize(
    ("likely", "steps", "told"),
    [
        (None, 0, None),
        (0.0, 1, 0.0),
        (-1.06, 9, -1.0),
        (-500.0, 255, -31.75),
        (0.5, 1, 0.0),
        (math.nan, 255, -31.75),
        (-math.inf, 255, -31.75),
    ],
)
def test_how_likely_the_sharer_finds_its_answer_travels_in_eighths_of_a_nat(
    likely: float | None, steps: int, told: float | None
) -> None:
    header = replace(header_of(), specs=())
    timings = {"queue": 0.25, "prefill": 1.5, "encode": 0.25}
    trailer = SliceWriter(header, CODECS.get("raw"), Limits()).trailer(timings, Certainty(likely))
    sent = serde.share_response_to_proto(trailer)
    assert sent.trailer.likely == steps
    read = serde.share_response_from_proto(sent, LIMITS)
    assert isinstance(read, SliceTrailer) and read == trailer and read.certainty == Certainty(told)


@pytest.mark.parametrize(
    ("odds", "steps", "told"),
    [(None, 0, None), (0.0, 128, 0.0), (-1.26, 108, -1.25), (99.0, 255, 7.9375), (math.nan, 1, -7.9375)],
)
def test_the_odds_that_there_is_an_answer_travel_in_sixteenths_of_a_nat(
    odds: float | None, steps: int, told: float | None
) -> None:
    header = replace(header_of(), specs=())
    trailer = SliceWriter(header, CODECS.get("raw"), Limits()).trailer({}, Certainty(answerable=odds))
    sent = serde.share_response_to_proto(trailer)
    read = serde.share_response_from_proto(sent, LIMITS)
    assert sent.trailer.answerable == steps
    assert isinstance(read, SliceTrailer) and read.certainty == Certainty(answerable=told)
    assert read.certainty.signals == ({} if told is None else {"answerable": told})


@pytest.mark.parametrize("wrong", [{"quoted": 4}, {"quoted": 1, "runs": 2}, {"quoted": 1}, {"runs": 1}])
def test_a_trailer_that_quotes_more_than_it_has_or_in_no_runs_is_refused(wrong: dict[str, int]) -> None:
    _, trailer = written(header_of())
    message = serde.share_response_to_proto(trailer)
    for name, value in wrong.items():
        setattr(message.trailer, name, value)
    with pytest.raises(BadHeader, match="quoted in"):
        serde.share_response_from_proto(message, LIMITS)


@pytest.mark.parametrize("name", ["likely", "answerable"])
def test_a_certainty_beyond_its_scale_is_refused(name: str) -> None:
    _, trailer = written(header_of())
    message = serde.share_response_to_proto(trailer)
    setattr(message.trailer, name, 256)
    with pytest.raises(BadHeader, match=name):
        serde.share_response_from_proto(message, LIMITS)


@pytest.mark.parametrize("header", [header_of(), excerpt_header(), replace(header_of(), specs=())])
def test_every_part_of_a_slice_survives(header: object) -> None:
    frames, summary = written(header)  # type: ignore[arg-type]
    for part in (header, *frames, summary):
        data = serde.share_response_to_proto(part).SerializeToString()  # type: ignore[arg-type]
        assert serde.share_response_from_proto(pb.ShareResponse.FromString(data), LIMITS) == part


def test_segments_of_one_shape_and_element_type_share_a_run() -> None:
    narrow = spec_of(SegmentKind.KEY_CODE, 3)
    changing = [
        narrow,
        replace(narrow, kind=SegmentKind.VALUE_CODE),
        replace(narrow, layer=6, shape=(3, 9)),
        replace(narrow, layer=7, shape=(3, 9), dtype="float16"),
        replace(narrow, layer=8),
    ]
    specs = tuple(replace(spec, segment_id=place) for place, spec in enumerate(changing))
    messages = serde.segments_to_proto(specs)
    assert serde.segments_from_proto(messages) == specs
    assert [list(message.layers) for message in messages] == [[5, 5], [6], [7], [8]]
    (alike,) = serde.segments_to_proto(header_of(layers=60).specs)
    assert len(alike.layers) == 120 and alike.ByteSize() <= 2 * 120 + 20


def test_beside_its_payload_a_small_shared_slice_costs_what_the_specification_says() -> None:
    header = header_of(positions=3, layers=20)
    (frame,), summary = written(header, "int8", Limits())
    beside = serde.share_response_to_proto(frame).ByteSize() - len(frame.data)
    assert 13 <= beside <= 19 and len(frame.data) - summary.payload_bytes == len(header.specs)
    bare = serde.share_response_to_proto(replace(header, specs=())).ByteSize()
    assert serde.share_response_to_proto(header).ByteSize() - bare <= 15 + 2 * len(header.specs)
    spanless = replace(header, spans=(), specs=(), tail=1)
    assert bare - serde.share_response_to_proto(spanless).ByteSize() <= 10 * len(header.spans)


def test_a_description_survives() -> None:
    bundle = replace(description_of().bundles[0], codecs=(CodecRef("transform-2", "d" * 64),))
    description = replace(
        description_of(), bundles=(bundle,), limits=Limits(max_positions=77), relay_allowed=True
    )
    data = serde.description_to_proto(description).SerializeToString()
    assert serde.description_from_proto(pb.DescribeResponse.FromString(data)) == description


def test_a_bundle_with_too_many_codecs_or_one_without_a_name_is_refused() -> None:
    message = serde.bundle_ref_to_proto(description_of().bundles[0])
    message.codecs.add(name="", parameters_hash="x")
    with pytest.raises(BadHeader):
        serde.bundle_ref_from_proto(message)
    message.codecs.extend([pb.CodecRef(name="a", parameters_hash="b")] * 300)
    with pytest.raises(TooLarge, match="codecs"):
        serde.bundle_ref_from_proto(message)


def test_the_relay_survives() -> None:
    question = Section(Role.QUESTION, Visibility.SHARED, text="?")
    about = {"request_id": REQUEST_ID, "sharer": SHARER, "max_new_tokens": 9, "sections": (question,)}
    request = RelayRequest(**about, max_bytes=900)  # type: ignore[arg-type]
    for wrong in (-1, 2**64):
        with pytest.raises(InvalidRequest, match="max_bytes"):
            RelayRequest(**about, max_bytes=wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="max_bytes"):
            replace(request_of(SliceKind.SHARED), max_bytes=wrong)
    assert serde.relay_request_from_proto(serde.relay_request_to_proto(request), LIMITS) == request
    timings = {"queue": 0.5, "prefill": 1.0, "encode": 0.0}
    reply = RelayReply(REQUEST_ID, "text", 3, timings, VERSIONS)
    assert serde.relay_reply_from_proto(serde.relay_reply_to_proto(reply), LIMITS) == reply


@pytest.mark.parametrize(
    ("versions", "error"), [([bytes(15)], BadHeader), ([bytes(17)], BadHeader), ([bytes(16)] * 999, TooLarge)]
)
def test_a_version_has_sixteen_bytes_and_there_are_no_more_than_sections(
    versions: list[bytes], error: type[KvwireError]
) -> None:
    header = serde.slice_header_to_proto(replace(header_of(), versions=()))
    header.versions.extend(versions)
    relayed = pb.RelayResponse(request_id=REQUEST_ID, versions=versions)
    for read, message in ((serde.slice_header_from_proto, header), (serde.relay_reply_from_proto, relayed)):
        with pytest.raises(error):
            read(message, LIMITS)  # type: ignore[operator]


def test_a_section_for_the_edge_is_never_put_on_the_wire() -> None:
    section = Section(Role.DOCUMENT, Visibility.EDGE, text="my notes")
    with pytest.raises(InvalidRequest):
        serde.section_to_proto(section)
    with pytest.raises(InvalidRequest):
        replace(request_of(), sections=(section,))


def test_a_cloud_section_is_sent_by_id_only() -> None:
    with pytest.raises(InvalidRequest):
        replace(request_of(), sections=(Section(Role.DOCUMENT, Visibility.CLOUD, text="the document"),))


def broken_requests() -> dict[str, object]:
    def cut(message: pb.ShareRequest) -> None:
        message.request_id = b"short"

    def no_sharer(message: pb.ShareRequest) -> None:
        message.ClearField("sharer")

    def no_kind(message: pb.ShareRequest) -> None:
        message.kind = pb.SLICE_KIND_UNSPECIFIED

    def unknown_kind(message: pb.ShareRequest) -> None:
        message.MergeFromString(pb.ShareRequest(kind=99).SerializeToString())  # type: ignore[arg-type]

    def no_codec(message: pb.ShareRequest) -> None:
        message.plan.codec = ""

    def long_bundle(message: pb.ShareRequest) -> None:
        message.bundle_hash = "a" * 10_000

    def no_sections(message: pb.ShareRequest) -> None:
        del message.sections[:]

    def unknown_visibility(message: pb.ShareRequest) -> None:
        message.sections[0].MergeFromString(b"\x10\x03")

    def no_body(message: pb.ShareRequest) -> None:
        message.sections[0].ClearField("text")

    def shared_document(message: pb.ShareRequest) -> None:
        message.sections[1].visibility = pb.VISIBILITY_SHARED

    def cloud_text(message: pb.ShareRequest) -> None:
        message.sections[0].visibility = pb.VISIBILITY_CLOUD

    def many_sections(message: pb.ShareRequest) -> None:
        for _ in range(100):
            message.sections.add().CopyFrom(message.sections[0])

    def long_question(message: pb.ShareRequest) -> None:
        message.sections[0].text = "x" * 9_000

    def unordered_layers(message: pb.ShareRequest) -> None:
        message.plan.layers.extend([3, 1])

    def repeated_layer(message: pb.ShareRequest) -> None:
        message.plan.layers.extend([3, 3])

    def layer_of_no_model(message: pb.ShareRequest) -> None:
        message.plan.layers.append(2**32 - 1)

    def many_layers(message: pb.ShareRequest) -> None:
        message.plan.layers.extend(range(60_000))

    def cut_codes_of_a_shared_slice(message: pb.ShareRequest) -> None:
        message.plan.code_dim = 4

    def layers_of_an_excerpt(message: pb.ShareRequest) -> None:
        message.kind = pb.SLICE_KIND_EXCERPT
        message.plan.layers.append(1)

    return {name: f for name, f in locals().items() if callable(f)}


@pytest.mark.parametrize("name", broken_requests())
def test_a_broken_request_is_refused(name: str) -> None:
    message = serde.share_request_to_proto(request_of())
    broken_requests()[name](message)  # type: ignore[operator]
    with pytest.raises((BadHeader, InvalidRequest, TooLarge)):
        serde.share_request_from_proto(message, LIMITS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("element_type", 0),
        ("element_type", 9),
        ("kinds", 0),
        ("kinds", 99),
        ("layers", -2),
        ("layers", 1 << 20),
    ],
)
def test_a_broken_segment_spec_is_refused(field: str, value: int) -> None:
    message = serde.slice_header_to_proto(header_of())
    run = message.segments[0]
    if field == "element_type":
        run.element_type = value  # type: ignore[assignment]
    else:
        getattr(run, field)[0] = value
    with pytest.raises(BadHeader):
        serde.slice_header_from_proto(message, LIMITS)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 4, 5), (2, 3, 2**32 - 1), (0, 3, 4)])
def test_a_broken_shape_is_refused(shape: tuple[int, ...]) -> None:
    message = serde.slice_header_to_proto(header_of())
    del message.segments[0].shape[:]
    message.segments[0].shape.extend(shape)
    with pytest.raises(BadHeader):
        serde.slice_header_from_proto(message, LIMITS)


@pytest.mark.parametrize("field", ["kinds", "layers"])
def test_a_run_of_segments_with_a_kind_or_a_layer_missing_is_refused(field: str) -> None:
    message = serde.slice_header_to_proto(header_of())
    getattr(message.segments[0], field).pop()
    with pytest.raises(BadHeader, match="layers"):
        serde.slice_header_from_proto(message, LIMITS)
    message = serde.slice_header_to_proto(header_of())
    message.segments.add(shape=(2, 3, 4), element_type=pb.ELEMENT_TYPE_FLOAT32)
    with pytest.raises(BadHeader, match="0 kinds"):
        serde.slice_header_from_proto(message, LIMITS)


def test_more_segments_than_the_limits_allow_are_refused_before_they_are_made() -> None:
    message = serde.slice_header_to_proto(header_of())
    for runs in ([pb.SegmentRun(kinds=[1] * 1_025, layers=[0] * 1_025)], [pb.SegmentRun()] * 1_025):
        del message.segments[:]
        message.segments.extend(runs)
        with pytest.raises(TooLarge, match="segments: 1025 is over"):
            serde.slice_header_from_proto(message, LIMITS)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_time_that_makes_no_sense_is_refused(seconds: float) -> None:
    with pytest.raises(BadHeader):
        serde.timings_from_proto(pb.Timings(prefill_s=seconds))


def test_an_empty_part_and_missing_limits_are_refused() -> None:
    with pytest.raises(BadHeader):
        serde.share_response_from_proto(pb.ShareResponse(), LIMITS)
    with pytest.raises(BadHeader):
        serde.limits_from_proto(pb.Limits())
