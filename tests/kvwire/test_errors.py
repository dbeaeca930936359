import pickle

import pytest

from cloud_node.document_files import id_of
from kvwire import errors
from kvwire.errors import (
    CATALOGUE,
    Busy,
    ExportDenied,
    ExposureSpent,
    IncompatiblePeer,
    KvwireError,
    NoPassage,
    NotFound,
    TooLarge,
    entry_of,
)


def every_error() -> list[type[KvwireError]]:
    classes, waiting = [], [KvwireError]
    while waiting:
        classes.append(waiting.pop())
        waiting.extend(classes[-1].__subclasses__())
    return [c for c in classes if c.__module__ == errors.__name__]


def sample(error: type[KvwireError]) -> KvwireError:
    arguments = {
        IncompatiblePeer: ("codec", "raw", "int8"),
        TooLarge: ("sections", 40, 32),
        Busy: (2.5,),
        ExposureSpent: (40_000.0,),
        ExportDenied: ("relayed text",),
        NoPassage: (7,),
    }
    return error(*arguments.get(error, ()))


def test_every_error_has_its_own_line_in_the_catalogue() -> None:
    assert set(CATALOGUE) == set(every_error())
    assert len({entry.reason for entry in CATALOGUE.values()}) == len(CATALOGUE)


@pytest.mark.parametrize("error", every_error())
def test_an_error_survives_pickling(error: type[KvwireError]) -> None:
    before = sample(error)
    after = pickle.loads(pickle.dumps(before))  # noqa: S301 - our own bytes; replicas raise across processes
    assert type(after) is error
    assert (str(after), after.metadata()) == (str(before), before.metadata())


def test_a_subclass_without_a_line_takes_its_parents() -> None:
    class Special(NotFound):
        pass

    assert entry_of(Special) is CATALOGUE[NotFound]


def test_an_incompatible_peer_names_both_values() -> None:
    text = str(IncompatiblePeer("bundle hash", "aaa", "bbb"))
    assert "aaa" in text
    assert "bbb" in text


def test_where_a_document_is_not_found_it_is_said_where_ids_are_shown_and_how_they_are_made() -> None:
    said = str(NotFound())
    assert said.startswith("There is no such document, or it is not for this caller. ")
    assert "`kvwire documents list` in the cloud" in said and "report.txt has the id report.txt" in said
    assert id_of("report.txt") == "report.txt"


@pytest.mark.parametrize(
    ("field", "then"),
    [
        ("Sharer", "kvwire init edge --bundle NAME"),
        ("bundle hash", "`[receiver] bundle`"),
        ("slice kind", "`[share] kind`"),
        ("protocol version", "one version of kvwire"),
    ],
)
def test_an_incompatible_peer_says_what_to_do_on_which_side(field: str, then: str) -> None:
    assert then in str(IncompatiblePeer(field, "aaa", "bbb"))


def test_values_of_a_peer_are_cut() -> None:
    assert len(str(IncompatiblePeer("codec", "x" * 10_000, "y" * 10_000))) < 500


def test_an_error_without_detail_says_the_catalogues_text() -> None:
    assert str(NotFound()) == NotFound().public_text == CATALOGUE[NotFound].text
    assert str(NotFound("document note-1 of tenant acme")) == "document note-1 of tenant acme"


def test_what_may_not_leave_is_named_with_the_two_things_that_keep_it() -> None:
    text = str(ExportDenied("draft slices over documents"))
    assert text.endswith("export policy or a document's own cap: draft slices over documents")
