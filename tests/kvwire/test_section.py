import pytest

from kvwire.errors import InvalidRequest
from kvwire.section import Role, Section, Visibility, sent_up


def test_a_section_has_either_text_or_a_document_id() -> None:
    with pytest.raises(InvalidRequest):
        Section(Role.QUESTION, Visibility.SHARED)
    with pytest.raises(InvalidRequest):
        Section(Role.DOCUMENT, Visibility.CLOUD, text="a", document_id="b")
    assert Section(Role.QUESTION, Visibility.SHARED, text="").text == ""


@pytest.mark.parametrize("visibility", [Visibility.SHARED, Visibility.EDGE])
def test_only_a_cloud_section_names_a_document(visibility: Visibility) -> None:
    with pytest.raises(InvalidRequest):
        Section(Role.DOCUMENT, visibility, document_id="note-1")


def test_an_empty_document_id_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        Section(Role.DOCUMENT, Visibility.CLOUD, document_id="")


@pytest.mark.parametrize("passage", [-1, 2**32])
def test_a_passage_is_a_number_of_the_wire_and_of_a_document(passage: int) -> None:
    with pytest.raises(InvalidRequest, match="passage"):
        Section(Role.DOCUMENT, Visibility.CLOUD, document_id="note-1", passage=passage)
    with pytest.raises(InvalidRequest, match="only a document"):
        Section(Role.QUESTION, Visibility.SHARED, text="Where?", passage=1)


def test_edge_sections_are_left_out_of_what_is_sent_up() -> None:
    sections = [
        Section(Role.SYSTEM, Visibility.SHARED, text="s"),
        Section(Role.DOCUMENT, Visibility.EDGE, text="my notes"),
        Section(Role.DOCUMENT, Visibility.CLOUD, document_id="note-1"),
    ]
    assert sent_up(sections) == (0, 2)
