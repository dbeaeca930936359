"""What may leave of documents: the policy as a function, and a sealed document behind a real gateway."""

import dataclasses
import os
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_node.config import CloudConfig, ExportPolicy, ProfileName
from cloud_node.document_reader import DocumentInfo
from cloud_node.documents import Documents
from cloud_node.export import check_leaving, positions_allowed, tokens_allowed
from kvwire.errors import (
    AccessDenied,
    ExportDenied,
    IncompatiblePeer,
    InternalError,
    KvwireError,
    RelayDisabled,
)
from kvwire.messages import RelayReply, RelayRequest
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceHeader, SliceKind
from kvwire.serde import relay_request_to_proto, share_request_to_proto
from kvwire.v1.sharer_pb2_grpc import SharerServiceStub
from tests.cloud_node.conftest import LocalCloud, Start

QUESTION = "Who keeps the spare key?"
SEALED = ("Ilse Brandvik keeps the key.", "图书馆在河边。" * 90)
"""Two texts of one sealed document, of very different length."""

policies = st.builds(
    ExportPolicy,
    profile=st.just("custom"),
    kinds=st.sets(st.sampled_from(SliceKind)).map(tuple),
    max_positions=st.integers(0, 64),
    max_quoted=st.integers(0, 64),
    max_runs=st.integers(1, 3),
    shared_over_documents=st.integers(0, 64),
    allow_relay=st.booleans(),
)
documents = st.lists(
    st.builds(
        DocumentInfo,
        id=st.just("d"),
        characters=st.just(1),
        max_positions=st.none() | st.integers(0, 64),
        kinds=st.none() | st.sets(st.sampled_from(SliceKind)).map(tuple),
    ),
    max_size=4,
)
plans = st.sampled_from([Plan(codec="raw"), Plan(codec="raw", quoted=4), Plan(codec="raw", runs=2)])


def of(function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (ExportDenied, RelayDisabled) as error:
        return type(error)


def least(policy: int, documents: list[DocumentInfo]) -> Any:
    """The lowest cap, or the refusal that a cap of 0 is."""
    return min([policy, *(d.max_positions for d in documents if d.max_positions is not None)]) or ExportDenied


def keeps_in(documents: list[DocumentInfo], kind: SliceKind) -> bool:
    return any(d.kinds is not None and kind not in d.kinds for d in documents)


@given(policies, st.sampled_from(SliceKind), plans, documents)
def test_no_more_leaves_than_policy_and_every_document_allow(
    policy: ExportPolicy, kind: SliceKind, plan: Plan, documents: list[DocumentInfo]
) -> None:
    allowed = of(positions_allowed, policy, kind, plan, documents)
    needed = {kind, SliceKind.EXCERPT} if plan.quoted else {kind}
    kept_in = not needed <= set(policy.kinds) or any(keeps_in(documents, one) for one in needed)
    if kept_in or policy.max_runs < plan.runs or policy.max_quoted < plan.quoted:
        assert allowed is ExportDenied
    elif kind is not SliceKind.EXCERPT and not documents:
        assert allowed is None, "nothing of a document is in it"
    else:
        most = {
            SliceKind.SHARED: policy.shared_over_documents,
            SliceKind.EXCERPT: min(policy.max_positions, policy.max_quoted),
            SliceKind.DRAFT: policy.max_positions,
        }[kind]
        assert allowed == least(most, documents)


@given(policies, documents)
def test_relayed_text_counts_as_a_draft(policy: ExportPolicy, documents: list[DocumentInfo]) -> None:
    allowed = of(tokens_allowed, policy, documents)
    if not policy.allow_relay:
        assert allowed is RelayDisabled
    elif keeps_in(documents, SliceKind.DRAFT) or (documents and SliceKind.DRAFT not in policy.kinds):
        assert allowed is ExportDenied
    else:
        assert allowed == (least(policy.max_positions, documents) if documents else None)


@given(policies, st.sampled_from(SliceKind), plans, documents)
def test_of_a_sealed_document_nothing_leaves_whatever_the_policy(
    policy: ExportPolicy, kind: SliceKind, plan: Plan, documents: list[DocumentInfo]
) -> None:
    for sealed in (DocumentInfo("s", 1, 0), DocumentInfo("s", 1, None, ())):
        assert of(positions_allowed, policy, kind, plan, [*documents, sealed]) is ExportDenied
        assert of(tokens_allowed, policy, [*documents, sealed]) in (ExportDenied, RelayDisabled)


PLANS = {
    SliceKind.SHARED: (
        Plan(codec="raw"),
        Plan(codec="int8", last=1),
        Plan(codec="int8", last=1, padded=True),
        Plan(codec="raw", layers=(0,)),
        Plan(codec="raw", bottleneck=True, padded=True),
    ),
    SliceKind.EXCERPT: (
        Plan(codec="raw"),
        Plan(codec="int8", positions=1),
        Plan(codec="lossless", positions=4, code_dim=6, padded=True),
    ),
    SliceKind.DRAFT: (
        Plan(codec="raw"),
        Plan(codec="int8", positions=1, padded=True),
        Plan(codec="lossless", quoted=4),
    ),
}


async def reply_of(cloud: LocalCloud, request: Any) -> list[bytes]:
    """Every byte that comes back of a call: messages, status, trailers."""
    async with cloud.channel() as channel:
        stub = SharerServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            if isinstance(request, RelayRequest):
                return [(await stub.Relay(relay_request_to_proto(request), timeout=20)).SerializeToString()]
            call = stub.Share(share_request_to_proto(request), timeout=20)
            return [reply.SerializeToString() async for reply in call]
        except grpc.RpcError as error:
            return [f"{error.code()} {error.details()} {error.trailing_metadata()}".encode()]


def padded(characters: int) -> tuple[Section, ...]:
    """Shared sections of this many characters, as far as one request may hold them."""
    sizes = [min(62_000, characters - start) for start in range(0, characters, 62_000)][:4]
    return tuple(Section(Role.SYSTEM, Visibility.SHARED, text="x" * size) for size in sizes)


async def test_no_bit_of_any_reply_depends_on_the_text_of_a_sealed_document(
    start_local: Start, config: CloudConfig
) -> None:
    generous = ExportPolicy(
        profile="custom", max_quoted=64, max_positions=64, shared_over_documents=8_192, allow_relay=True
    )
    cloud = await start_local(export=generous)
    documents = Documents(config.documents)
    documents.add("acme", "open", "The library is by the river.")
    replies: list[list[list[bytes]]] = []
    ids = {}
    most = cloud.description.limits.max_prompt_chars
    for text in SEALED:
        documents.add("acme", "sealed", text, max_positions=0, replace=True)
        came = []
        for kind, plans in PLANS.items():
            for plan in plans:
                for with_another, padding in ((False, 0), (True, 0), (False, most - 800), (True, most)):
                    case = (kind, plan, with_another, padding)
                    base = cloud.request("sealed", QUESTION, kind=kind, plan=plan)
                    another = Section(Role.DOCUMENT, Visibility.CLOUD, document_id="open")
                    sections = (another, *base.sections) if with_another else base.sections
                    sections += padded(padding)
                    codec = next(c for c in cloud.description.codecs if c.name == plan.codec)
                    # The same request both times, id and all: a refused one may come again.
                    request_id = ids.setdefault(case, os.urandom(16))
                    request = dataclasses.replace(
                        base, sections=sections, codec_hash=codec.parameters_hash, request_id=request_id
                    )
                    came.append(await reply_of(cloud, request))
        for padding in (0, most - 800, most):
            relay = RelayRequest(
                request_id=bytes(16),
                sharer=base.sharer,
                max_new_tokens=64,
                sections=(*base.sections, *padded(padding)),
            )
            came.append(await reply_of(cloud, relay))
        replies.append(came)
    assert replies[0] == replies[1]
    assert all(b"EXPORT_DENIED" in message for reply in replies[0] for message in reply)
    assert not cloud.replicas.timeouts_s, "a replica was asked"


async def test_shared_slices_over_documents_are_refused_unless_the_policy_names_them(
    start_local: Start,
) -> None:
    cloud = await start_local(export=ExportPolicy())
    with pytest.raises(ExportDenied, match="shared slices over documents"):
        await cloud.share(cloud.request("note-1", QUESTION, kind=SliceKind.SHARED))
    await cloud.share(cloud.request(None, QUESTION, kind=SliceKind.SHARED))
    named = await start_local(
        export=ExportPolicy(profile="custom", shared_over_documents=4), audit=f"{cloud.audit}.2"
    )
    with pytest.raises(ExportDenied, match="more than 4 positions"):
        await named.share(named.request("note-1", QUESTION, kind=SliceKind.SHARED))
    few = named.request("note-1", QUESTION, kind=SliceKind.SHARED, plan=Plan(codec="raw", last=4))
    header, *_ = await named.share(few)
    assert header.positions <= 4


async def test_a_document_that_may_only_be_drafted_never_gives_an_excerpt(
    start_local: Start, config: CloudConfig
) -> None:
    cloud = await start_local(
        export=ExportPolicy(profile="custom", shared_over_documents=64, allow_relay=True)
    )
    store = Documents(config.documents)
    store.add("acme", "drafts", "The key hangs behind the clock.", kinds=[SliceKind.DRAFT])
    store.add("acme", "quotes", "The key hangs behind the clock.", kinds=[SliceKind.EXCERPT])

    def asked(document: str, kind: SliceKind, plan: Plan) -> Any:
        return cloud.share(cloud.request(document, QUESTION, kind=kind, plan=plan))

    for kind, plan in (
        (SliceKind.EXCERPT, Plan(codec="raw")),
        (SliceKind.DRAFT, Plan(codec="raw", quoted=1)),
    ):
        with pytest.raises(ExportDenied, match="excerpt slices of this document"):
            await asked("drafts", kind, plan)
    with pytest.raises(ExportDenied, match="shared slices of this document"):
        await asked("drafts", SliceKind.SHARED, Plan(codec="raw"))
    header, *_ = await asked("drafts", SliceKind.DRAFT, Plan(codec="raw"))
    assert header.kind is SliceKind.DRAFT and 0 < header.positions <= 24
    with pytest.raises(ExportDenied, match="draft slices of this document"):
        await asked("quotes", SliceKind.DRAFT, Plan(codec="raw"))


async def test_a_quote_in_more_runs_than_the_policy_allows_is_refused_by_name(start_local: Start) -> None:
    cloud = await start_local(export=ExportPolicy())
    two = Plan(codec="raw", positions=4, runs=2)
    with pytest.raises(ExportDenied, match="more than 1 runs"):
        await cloud.share(cloud.request("note-1", QUESTION, plan=two))
    allowed = await start_local(export=ExportPolicy(profile="custom", max_runs=2), audit=f"{cloud.audit}.2")
    header, *_ = await allowed.share(allowed.request("note-1", QUESTION, plan=two))
    assert header.positions == 4


def test_a_profile_gives_the_keys_and_they_may_only_tighten_it() -> None:
    names: dict[ProfileName, int] = {"answer-only": 0, "short-quote": 8, "quote": 16}
    for name, quoted in names.items():
        policy = ExportPolicy(profile=name)
        assert (policy.max_quoted, policy.max_runs, policy.shared_over_documents) == (quoted, 1, 0)
        assert dataclasses.replace(policy, kinds=(SliceKind.DRAFT,), max_quoted=0).kinds == (SliceKind.DRAFT,)
        for key, value in {"max_quoted": quoted + 1, "max_runs": 2, "shared_over_documents": 1}.items():
            with pytest.raises(ValueError, match=f'{key}: profile "{name}" allows no more than'):
                dataclasses.replace(policy, **{key: value})
    with pytest.raises(ValueError, match='kinds: profile "answer-only" allows no more than shared, draft'):
        ExportPolicy(profile="answer-only", kinds=(SliceKind.EXCERPT,))
    assert ExportPolicy() == ExportPolicy(profile="short-quote")
    assert ExportPolicy(profile="custom", max_quoted=64, max_runs=9).max_quoted == 64


@pytest.mark.parametrize(("profile", "most"), [("answer-only", 0), ("short-quote", 8), ("quote", 16)])
async def test_a_profile_holds_on_the_wire(start_local: Start, profile: ProfileName, most: int) -> None:
    cloud = await start_local(export=ExportPolicy(profile=profile))
    header, *_ = await cloud.share(cloud.request("note-1", QUESTION, kind=SliceKind.DRAFT))
    assert header.kind is SliceKind.DRAFT
    over = Plan(codec="raw", quoted=most + 1)
    with pytest.raises(ExportDenied, match=r"quote more than|excerpt slices"):
        await cloud.share(cloud.request("note-1", QUESTION, kind=SliceKind.DRAFT, plan=over))
    if most:
        header, *_ = await cloud.share(cloud.request("note-1", QUESTION))
        assert 0 < header.positions <= most
    else:
        with pytest.raises(IncompatiblePeer, match="slice kind"):
            await cloud.share(cloud.request("note-1", QUESTION))


async def test_relayed_text_has_no_more_tokens_than_the_documents_cap(start_local: Start) -> None:
    cloud = await start_local(export=ExportPolicy(allow_relay=True))
    reply = await cloud.relay("capped", QUESTION, 64)  # cap 3
    share, replica = cloud.request("capped", QUESTION), cloud.replicas.replica
    sections, _ = replica._resolve("acme", share.sections)
    assert reply.text == replica._sharer(share.bundle_hash).answer(sections, 3)


async def test_a_header_that_may_not_leave_is_stopped_whoever_made_it(
    start_local: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = await start_local()
    wanted = cloud.request("note-1", QUESTION)
    header, *_ = await cloud.share(wanted)
    check_leaving(header, wanted, header.positions)
    with pytest.raises(ExportDenied):
        check_leaving(header, wanted, header.positions - 1)
    other = cloud.request("note-1", QUESTION)
    with pytest.raises(InternalError):
        check_leaving(header, other, None)
    monkeypatch.setattr("cloud_node.replica.check_leaving", lambda *_: None)
    monkeypatch.setattr("cloud_node.replica.positions_allowed", lambda *_: 12)
    monkeypatch.setattr("cloud_node.replica.least", lambda *_: 12)
    with pytest.raises(KvwireError) as error:
        await cloud.share(cloud.request("capped", QUESTION))
    assert isinstance(error.value, ExportDenied)


async def test_a_second_header_never_leaves(start_local: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = await start_local()
    wanted = cloud.request("capped", QUESTION)
    honest = cloud.replicas.share

    async def lying(call: Any, timeout_s: float) -> Any:
        async for part in honest(call, timeout_s):
            yield part
            if isinstance(part, SliceHeader):
                yield dataclasses.replace(part, specs=())

    monkeypatch.setattr(cloud.replicas, "share", lying)
    with pytest.raises(InternalError):
        await cloud.share(wanted)


@pytest.mark.parametrize("wrong", ["tokens", "asked", "request"])
async def test_a_relayed_text_that_may_not_leave_is_stopped_whoever_made_it(
    start_local: Start, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    cloud = await start_local(export=ExportPolicy(allow_relay=True))
    share = cloud.request("capped" if wrong == "tokens" else "note-1", QUESTION)  # caps 3 and 32
    request = RelayRequest(
        request_id=share.request_id, sharer=share.sharer, max_new_tokens=5, sections=share.sections
    )

    async def lying(self: Any, call: Any, timeout_s: float) -> RelayReply:
        tokens = {"tokens": 4, "asked": 6, "request": 1}[wrong]
        name = bytes(16) if wrong == "request" else call.request.request_id
        return RelayReply(name, "secret " * tokens, tokens, {"queue": 0.0, "prefill": 0.0, "encode": 0.0})

    monkeypatch.setattr(type(cloud.replicas), "relay", lying)
    (reply,) = await reply_of(cloud, request)
    assert (b"EXPORT_DENIED" if wrong == "tokens" else b"INTERNAL") in reply
    assert b"secret" not in reply
    assert "SENDING" not in cloud.audit.read_text()


def test_a_refusal_is_an_access_that_is_denied_and_says_what() -> None:
    assert issubclass(ExportDenied, AccessDenied)
    assert ExportDenied("relayed text").metadata() == {"what": "relayed text"}
