"""Search over gRPC: what it finds, for whom, what of it is recorded, and what is asked about it next."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from cloud_node.audit_chain import verify
from cloud_node.config import CloudConfig, ExportPolicy
from cloud_node.documents import Documents
from cloud_node.passages import passages
from kvwire.errors import (
    ExportDenied,
    IncompatiblePeer,
    InvalidRequest,
    KvwireError,
    MissingDeadline,
    NoPassage,
    NotFound,
    TooLarge,
)
from kvwire.limits import Limits
from kvwire.messages import Found
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from tests.cloud_fixture import DOCUMENTS
from tests.cloud_node.conftest import LocalCloud, Start

QUESTION = "Who keeps the spare key?"
CANARY = "zebra-canary-7731"
LONG = "\n\n".join(
    f"Paragraph {n} tells of lighthouse number {n}. " + "The tide is at nine. " * 35 for n in range(6)
)


@pytest.fixture
def documents(config: CloudConfig) -> Documents:
    """The store of the cloud, with a document of six passages more."""
    documents = Documents(config.documents)
    documents.add("acme", "lights", LONG)
    return documents


def asked(cloud: LocalCloud, *named: tuple[str, int], **changes: Any) -> Any:
    """A request about passages of documents."""
    sections = (
        *(Section(Role.DOCUMENT, Visibility.CLOUD, document_id=name, passage=n) for name, n in named),
        Section(Role.QUESTION, Visibility.SHARED, text=QUESTION),
    )
    return cloud.request(None, QUESTION, kind=SliceKind.EXCERPT, **({"sections": sections} | changes))


async def test_a_question_without_a_document_finds_the_passages_that_have_its_words(
    start_local: Start, documents: Documents
) -> None:
    cloud = await start_local()
    best, *_ = await cloud.search("Where is the spare key of Ilse Brandvik?")
    assert (best.document, best.passage) == ("note-1", 1)
    found = await cloud.search("Which lighthouse is number 4?", 2)
    assert (found[0].document, found[0].passage) == ("lights", 5) and len(found) == 2
    assert await cloud.search("xylophone") == ()


async def test_what_is_searched_is_recorded_by_id_and_never_by_word(
    start_local: Start, documents: Documents
) -> None:
    documents.add("acme", "canary", f"The word is {CANARY}.")
    cloud = await start_local()
    assert [one.document for one in await cloud.search(CANARY)] == ["canary"]
    await cloud.gateway.drain()
    lines = [json.loads(line) for line in cloud.audit.read_text().splitlines()]
    assert [(line["method"], line["decision"], line["documents"]) for line in lines] == [
        ("Search", "SENDING", ["canary"]),
        ("Search", "SERVED", ["canary"]),
    ]
    assert verify(cloud.audit).records == 2 and "zebra" not in cloud.audit.read_text()


REFUSED: dict[str, tuple[dict[str, Any], type[KvwireError]]] = {
    "nothing asked": ({"question": "  "}, InvalidRequest),
    "a question too long": ({"question": "w" * (Limits().max_question_chars + 1)}, TooLarge),
    "a message too long": ({"question": "w" * (Limits().max_request_bytes + 1)}, TooLarge),
    "no passage": ({"k": 0}, InvalidRequest),
    "too many passages": ({"k": Limits().max_found + 1}, TooLarge),
    "another version": ({"protocol_version": 5}, IncompatiblePeer),
    "no deadline": ({"timeout_s": None}, MissingDeadline),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_search_that_may_not_be_is_refused_by_name(start_local: Start, case: str) -> None:
    changes, error = REFUSED[case]
    cloud = await start_local()
    with pytest.raises(error):
        await cloud.search(**({"question": QUESTION} | changes))
    await cloud.gateway.drain()
    (line,) = [json.loads(line) for line in cloud.audit.read_text().splitlines()]
    assert (line["method"], line["documents"]) == ("Search", []) and line["decision"] != "SERVED"


async def test_other_tenants_documents_and_sealed_ones_are_not_found_and_no_score_tells_of_them(
    start_local: Start, documents: Documents
) -> None:
    documents.add("acme", "bridge", "The bridge over the river.")
    cloud = await start_local()
    before = await cloud.search("meeting bridge Tarn Thursday")
    assert [one.document for one in before] == ["bridge"]  # "foreign" has all of the words
    for number in range(20):
        documents.add("other", f"n{number}", DOCUMENTS["other", "foreign"])
        documents.add("acme", f"s{number}", DOCUMENTS["other", "foreign"], max_positions=0)
        documents.add("acme", f"k{number}", DOCUMENTS["other", "foreign"], kinds=())
    assert await cloud.search("meeting bridge Tarn Thursday") == before


async def test_a_policy_may_let_nobody_search_and_what_lets_nothing_out_finds_nothing(
    start_local: Start,
) -> None:
    cloud = await start_local(export=ExportPolicy(allow_search=False))
    with pytest.raises(ExportDenied, match="words stand"):
        await cloud.search(QUESTION)
    await cloud.gateway.drain()
    shut = await start_local(
        export=ExportPolicy(max_positions=0), audit=str(cloud.audit.with_name("shut.jsonl"))
    )
    assert await shut.search(QUESTION) == ()


async def test_a_passage_is_asked_about_as_if_it_were_the_document(
    start_local: Start, documents: Documents
) -> None:
    ranges = list(passages(LONG))
    begins, ends = ranges[4]
    documents.add("acme", "alone", LONG[begins:ends])
    cloud = await start_local()
    plan = Plan(codec="raw", positions=6)
    whole = await cloud.share(asked(cloud, ("alone", 0), plan=plan))
    passage = await cloud.share(asked(cloud, ("lights", 5), plan=plan))
    other = await cloud.share(asked(cloud, ("lights", 4), plan=plan))
    first, second, third = (parts[1].data for parts in (whole, passage, other))
    assert first == second != third


async def test_several_passages_and_documents_share_the_positions_of_the_least_cap(
    start_local: Start, documents: Documents
) -> None:
    cloud = await start_local()
    lights = [("lights", n) for n in (1, 3, 6)]
    header, *_ = await cloud.share(asked(cloud, *lights, ("note-1", 0)))
    assert header.positions == 12
    documents.add("acme", "lights", LONG, max_positions=5, replace=True)
    header, *_ = await cloud.share(asked(cloud, *lights, ("note-1", 0)))
    assert header.positions == 5, "those of all its passages count together"
    header, *_ = await cloud.share(asked(cloud, *lights, ("capped", 1)))
    assert header.positions == 3
    documents.add("acme", "lights", LONG, max_positions=0, replace=True)
    with pytest.raises(ExportDenied):
        await cloud.share(asked(cloud, ("lights", 2)))
    await cloud.share(asked(cloud, ("note-1", 0), ("note-2", 1)))
    lines = [json.loads(line) for line in cloud.audit.read_text().splitlines()]
    assert ["lights", "note-1"] in [line["documents"] for line in lines]


@pytest.mark.parametrize("passage", [7, 2**32 - 1])
async def test_a_passage_that_there_is_not_is_refused_by_name(
    start_local: Start, documents: Documents, passage: int
) -> None:
    cloud = await start_local(export=ExportPolicy(allow_relay=True))
    with pytest.raises(NoPassage) as error:
        await cloud.share(asked(cloud, ("note-1", 0), ("lights", passage)))
    assert error.value.passage == passage
    for name in ("foreign", "nobodys"):
        with pytest.raises(NotFound) as unknown:
            await cloud.share(asked(cloud, (name, passage)))
        assert type(unknown.value) is NotFound and unknown.value.metadata() == {}
    documents.add("acme", "sealed", LONG, max_positions=0)
    with pytest.raises(ExportDenied):  # not how many passages it has
        await cloud.share(asked(cloud, ("sealed", passage)))


Change = Callable[[Documents], Any]
MEANWHILE: dict[str, tuple[Change, type[KvwireError]]] = {
    "removed": (lambda documents: documents.remove("acme", "lights"), NotFound),
    "replaced": (lambda documents: documents.add("acme", "lights", "A short text.", replace=True), NoPassage),
    "sealed": (lambda documents: documents.add("acme", "lights", LONG, 0, replace=True), ExportDenied),
}


@pytest.mark.parametrize("case", MEANWHILE)
@pytest.mark.parametrize("when", ["after the search", "before the replica reads", "before the slice leaves"])
async def test_what_was_found_and_changed_meanwhile_is_refused(
    start_local: Start, documents: Documents, case: str, when: str
) -> None:
    change, error = MEANWHILE[case]
    cloud = await start_local()
    (found,) = await cloud.search("Which lighthouse is number 4?", 1)
    assert found == Found("lights", 5, found.score)
    share = cloud.replicas.share

    async def changed(*call: Any) -> Any:
        if when == "before the replica reads":
            change(documents)
        parts = [part async for part in share(*call)]
        if when == "before the slice leaves":
            change(documents)
        for part in parts:
            yield part

    cloud.replicas.share = changed  # type: ignore[method-assign, assignment]
    if when == "after the search":
        change(documents)
    with pytest.raises(error):
        await cloud.share(asked(cloud, (found.document, found.passage)))
    lines = [json.loads(line) for line in cloud.audit.read_text().splitlines()]
    assert "Share" not in [line["method"] for line in lines if line["decision"] == "SENDING"]
